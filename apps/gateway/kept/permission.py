"""Whether anything of a request may be kept here."""

from typing import Any

from apps.keys.contracts import KeyGrant


def forbids_keeping(grant: KeyGrant, body: dict[str, Any]) -> bool:
    """Whether the organization, or the request itself, lets the prompt go only to those who keep nothing: nor is its
    answer kept, then."""
    data = None if grant.policy is None else grant.policy.data
    wanted = body.get("provider")
    asks_for_none = isinstance(wanted, dict) and wanted.get("zdr") is True
    return asks_for_none or (data is not None and data.requires_zero_retention)
