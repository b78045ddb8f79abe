"""The header that names what of a request its upstream could not be told. Pure."""

import re
from collections.abc import Iterable
from typing import Final

HEADER: Final = "x-crun-dropped-params"
MAX_NAMES: Final = 32
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
"""The names are the caller's own: what is none for a header is told as `other`."""


def header_value(dropped: Iterable[str]) -> str:
    """The names, each once, with commas between them."""
    names = dict.fromkeys(name if _NAME.fullmatch(name) else "other" for name in dropped)
    return ", ".join(list(names)[:MAX_NAMES])
