"""Where providers may be: what an operator may enter as a base URL. Pure.

Operators serve models of their own, so private networks are allowed unless they say otherwise."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from apps.core.addresses import ANY_PRIVATE, Network, host_problem

_PRINTABLE: Final = re.compile(r"[!-~]{1,500}")
_EXPECTED: Final = "must be an http or https address up to and with /v1, without user, query or fragment"


def base_url_problem(url: str, private: Sequence[Network] = ANY_PRIVATE) -> str:
    """Why requests may not go to this base URL; "" when its text says nothing against it."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_address = parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not _PRINTABLE.fullmatch(url) or re.search(r"[@?#\\]|^[^:]+:(?!//[^/])", url):
        return _EXPECTED
    return host_problem(host, private)
