"""Keeping organizations' own provider keys: every change is announced to the gateways, no key is ever read back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.core.crypto import seal
from apps.core.errors import Conflict, InvalidInput
from apps.core.names import check_name
from apps.policies.changing import announce_policy
from apps.policies.models import ProviderCredential
from apps.policies.own_credentials import OWN_KINDS, SETTABLE_OPTIONS, binding, kind_of

MOST_KEYS: Final = 100
"""Of one organization: a grant carries those that its key may use."""
MOST_LISTED: Final = 200
"""Models or API keys that one of them names."""
LEAST_CHARACTERS: Final = 8
MOST_CHARACTERS: Final = 4_096
"""A token of Entra has about two thousand."""
SHOWN: Final = 4
LEAST_TO_SHOW: Final = 16
"""Of a shorter key the last characters would tell too much."""
_SENDABLE: Final = re.compile(r"[!-~]+")
_ANY_FORM: Final = (re.compile(r".+"), "the key must not be empty")
_FORMS: Final = {
    "sigv4": (
        re.compile(r"[A-Z0-9]{16,128}:[^:]{16,}(:.+)?"),
        "a key of AWS is ACCESS_KEY_ID:SECRET_ACCESS_KEY, perhaps with :SESSION_TOKEN",
    ),
    "entra-client": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}:[A-Za-z0-9-]{1,64}:.+"),
        "a client of Entra is TENANT:CLIENT_ID:CLIENT_SECRET",
    ),
}
"""Kind of a key -> how it is written, and what is told of one that is not."""


class Host(Protocol):
    """What of the operator's provider matters here (`apps.catalog.models.Provider`)."""

    id: str
    dialect: str
    base_url: str
    options: Any


@dataclass(frozen=True)
class Terms:
    """What may be said of a provider key, but for the key itself."""

    label: str
    order: int = 0
    is_exclusive: bool = False
    model_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@transaction.atomic
def add_credential(organization_id: str, provider: Host, secret: str, terms: Terms, *, actor: str) -> Any:
    """Keep a new key. Raises InvalidInput for a key that no header can carry or terms that cannot be, Conflict for a
    label that is taken and for too many keys."""
    if ProviderCredential.objects.for_organization(organization_id).count() >= MOST_KEYS:
        raise Conflict(f"an organization has at most {MOST_KEYS} provider keys")
    row = ProviderCredential(organization_id=organization_id, provider_id=provider.id, created_by=actor)
    _seal_into(row, provider, secret, terms.options)
    _apply(row, provider, terms)
    return _saved(row, actor, is_new=True)


@transaction.atomic
def change_credential(row: Any, provider: Host, terms: Terms, *, actor: str) -> Any:
    """Give a key other terms. Raises as `add_credential`."""
    locked = _locked(row)
    _apply(locked, provider, terms)
    return _saved(locked, actor)


@transaction.atomic
def rotate_credential(row: Any, provider: Host, secret: str, *, actor: str) -> Any:
    """Another key in the place of this one, for all that begins from now on. Raises InvalidInput for the key."""
    locked = _locked(row)
    _seal_into(locked, provider, secret, locked.options)
    locked.last_error, locked.last_error_at = "", None
    return _saved(locked, actor)


@transaction.atomic
def switch_credential(row: Any, *, on: bool, actor: str) -> Any:
    """Use the key, or leave it alone. Switching twice changes nothing."""
    locked = _locked(row)
    locked.enabled = on
    return _saved(locked, actor)


@transaction.atomic
def delete_credential(row: Any) -> None:
    """Forget the key. Records of requests keep its id and nothing else of it."""
    ProviderCredential.objects.for_organization(row.organization_id).filter(pk=row.pk).delete()
    announce_policy(row.organization_id)


@transaction.atomic
def note_uses(uses: Mapping[str, str]) -> None:
    """Keys that were used just now, by id, with the code of the error that they met, "" for none.

    Rows are locked in one order, so that two workers cannot wait for each other in a circle."""
    now = timezone.now()
    locked = ProviderCredential.objects.select_for_update(of=("self",)).filter(pk__in=uses).order_by("pk")
    for row in locked.only("pk"):
        error = uses[row.pk]
        changes = {"last_error": error, "last_error_at": now} if error else {"last_error": ""}
        ProviderCredential.objects.filter(pk=row.pk).update(last_used_at=now, **changes)


def _seal_into(row: Any, provider: Host, secret: str, options: Mapping[str, str]) -> None:
    """Seal the key for this row and the provider's host; the caller saves it."""
    if not LEAST_CHARACTERS <= len(secret) <= MOST_CHARACTERS or not _SENDABLE.fullmatch(secret):
        raise InvalidInput(
            f"the key must have {LEAST_CHARACTERS} to {MOST_CHARACTERS} letters, digits and signs, without spaces"
        )
    form, told = _FORMS.get(kind_of(provider.dialect, options, dict(provider.options)), _ANY_FORM)
    if not form.fullmatch(secret):
        raise InvalidInput(told)
    bound_to = binding(row.id, row.organization_id, provider_id=provider.id, base_url=provider.base_url)
    row.secret = seal(secret, bound_to=bound_to, ring=settings.ENCRYPTION_KEYS)
    row.last_four = secret[-SHOWN:] if len(secret) >= LEAST_TO_SHOW else ""


def _apply(row: Any, provider: Host, terms: Terms) -> None:
    row.label = check_name(terms.label, of="a provider key")
    if len(terms.model_ids) > MOST_LISTED or len(terms.key_ids) > MOST_LISTED:
        raise InvalidInput(f"a provider key names at most {MOST_LISTED} models and {MOST_LISTED} API keys")
    if unknown := set(terms.options) - set(SETTABLE_OPTIONS.get(provider.dialect, ())):
        raise InvalidInput(f"{', '.join(sorted(unknown))} is the operator's to say")
    if terms.options.get("auth", "") not in ("", *OWN_KINDS.get(provider.dialect, ())):
        raise InvalidInput("auth must be a kind of key that an organization can have")
    row.order, row.is_exclusive = terms.order, terms.is_exclusive
    row.model_ids, row.key_ids = sorted(set(terms.model_ids)), sorted(set(terms.key_ids))
    row.options = dict(terms.options)


def _locked(row: Any) -> Any:
    return ProviderCredential.objects.select_for_update(of=("self",)).get(pk=row.pk)


def _saved(row: Any, actor: str, *, is_new: bool = False) -> Any:
    row.changed_by = actor
    try:
        with transaction.atomic():
            row.save(force_insert=is_new)
    except IntegrityError:
        raise Conflict(f"there is a key with the label {row.label!r} at this provider") from None
    announce_policy(row.organization_id)
    return row
