"""Contents of stored responses and conversations: compressed and sealed, each readable under its own name and for its
owner only."""

import zlib
from collections.abc import Mapping
from typing import Final

from apps.core.crypto import seal_bytes, unseal_bytes
from apps.responses.contracts import ResponseOwner

_FAST: Final = 1


def sealed(content: bytes, *, owner: ResponseOwner, name: str, ring: Mapping[str, bytes]) -> bytes:
    """The content as it is stored, under the newest key. Its name, which no other has, is an id or two."""
    return seal_bytes(zlib.compress(content, _FAST), bound_to=_binding(owner, name), ring=ring)


def opened(stored: bytes, *, owner: ResponseOwner, name: str, ring: Mapping[str, bytes]) -> bytes:
    """The content. Raises ConfigurationError for another owner or id, or when the key is gone."""
    return zlib.decompress(unseal_bytes(stored, bound_to=_binding(owner, name), ring=ring))


def _binding(owner: ResponseOwner, name: str) -> str:
    side = "sandbox" if owner.sandbox else "live"
    return f"stored response:{owner.organization_id}:{owner.project_id}:{side}:{name}"
