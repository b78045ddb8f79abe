"""What a request wants of the response cache: by its headers, or by the terms of its model. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from apps.catalog.contracts import MAX_CACHE_TTL_S, CacheTerms
from apps.gateway.errors import bad_field

HEADER: Final = "HTTP_X_CRUN_CACHE"
_TTL_HEADER: Final = "HTTP_X_CRUN_CACHE_TTL"
_MODES: Final = {"on": "on", "true": "on", "off": "off", "false": "off", "refresh": "refresh"}


class Wish(msgspec.Struct, frozen=True):
    """How a request uses the cache; both False: not at all."""

    reads: bool
    keeps: bool
    ttl_s: int
    most_age_s: int | None = None
    """An older answer will not do, where the request names a time itself."""


def wish_of(meta: Mapping[str, Any], terms: CacheTerms, *, ttl_s: int) -> Wish:
    """The wish in a request's headers, or else in the model's terms; `ttl_s` counts where neither says how long.

    Raises GatewayError (400) for a header that is none."""
    said = meta.get(HEADER)
    mode = _MODES.get(said.strip().lower(), "") if said is not None else "on" if terms.default else "off"
    if not mode:
        raise bad_field("x-crun-cache", "x-crun-cache must be one of: on, off, refresh.")
    asked_s = _asked_ttl_s(meta)
    return Wish(
        reads=mode == "on",
        keeps=mode != "off",
        ttl_s=asked_s or terms.ttl_s or ttl_s,
        most_age_s=asked_s,
    )


def _asked_ttl_s(meta: Mapping[str, Any]) -> int | None:
    said = meta.get(_TTL_HEADER)
    if said is None:
        return None
    text = said.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_CACHE_TTL_S):
        raise bad_field("x-crun-cache-ttl", f"x-crun-cache-ttl must be whole seconds, from 1 to {MAX_CACHE_TTL_S}.")
    return int(text)
