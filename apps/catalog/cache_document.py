"""What the catalog document says of a model's response cache: read with the line of every problem, and rendered."""

from collections.abc import Iterator

from apps.catalog.contracts import FULL_SHARE_PPM, MAX_CACHE_TTL_S, CacheTerms
from apps.catalog.nodes import Key, Scalar, Spot, integer, one_of, read_table, scalar

_SWITCH = {"on": True, "off": False}
_on_or_off = one_of(tuple(_SWITCH))


def _switch(written: Scalar) -> bool:
    return _SWITCH[_on_or_off(written)]


_KEYS = {
    "default": Key(scalar(_switch), "default"),
    "ttl_s": Key(scalar(integer(1, MAX_CACHE_TTL_S)), "ttl_s"),
    "price_ppm": Key(scalar(integer(0, FULL_SHARE_PPM)), "share_ppm"),
}


def read_cache(spot: Spot) -> CacheTerms | None:
    """The terms in a mapping; None when it has a problem."""
    values = read_table(spot, _KEYS)
    return None if values is None else CacheTerms(**values)


def cache_pairs(terms: CacheTerms) -> Iterator[str]:
    """The `key: value` pairs of what is not as without them."""
    if terms.default:
        yield "default: on"
    if terms.ttl_s is not None:
        yield f"ttl_s: {terms.ttl_s}"
    if terms.share_ppm is not None:
        yield f"price_ppm: {terms.share_ppm}"
