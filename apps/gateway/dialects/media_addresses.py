"""Addresses of media in requests: whoever fetches them, they lead to the public internet. Pure.

CRUN fetches nothing. Some upstreams do, an operator's own engine among them, and that one stands in a network to which
no caller's address may lead. Names are not resolved here: an engine that fetches needs a wall of its own."""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from apps.core.addresses import Reach, reach_of_host
from apps.gateway.errors import bad_field

_PLACES: Final = {
    "image_url": ("url",),
    "video_url": ("url",),
    "input_audio": ("data", "url"),
    "file": ("file_data", "file_url", "url"),
}
"""Kind of a content part -> where an address may stand, in an object under the name of the kind."""
IN_ITEMS: Final = ("image_url", "file_url", "video_url", "server_url")
"""Of pictures, files and servers of tools. Results of a search have addresses too, and nobody goes there."""
_AUTHORITY: Final = re.compile(r"[A-Za-z]+://[^/?]+")
_HEAD: Final = 2_048
"""No longer addresses are looked at: what has no colon in it until here is base64."""


def check_media_address(place: str, part: dict[str, Any]) -> None:
    """Raises GatewayError (400) for an address that is not one of the public internet."""
    kind = part["type"]
    holder = part.get(kind)
    if isinstance(holder, str):
        _check(f"{place}.{kind}", holder)
    elif isinstance(holder, dict):
        for field in _PLACES.get(kind, ()):
            text = holder.get(field)
            if isinstance(text, str):
                _check(f"{place}.{kind}.{field}", text)


def check_addresses_within(place: str, value: object, *, fields: tuple[str, ...] = IN_ITEMS) -> None:
    """The same for what nobody here knows and goes on as it came: in fields of these names, at any depth."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        where = f"{place}[{name}]" if isinstance(value, list) else f"{place}.{name}"
        if isinstance(each, dict | list):
            check_addresses_within(where, each, fields=fields)
        elif isinstance(each, str) and name in fields:
            _check(where, each)


def _check(place: str, text: str) -> None:
    head = text[:_HEAD]
    if head[:5].lower() == "data:" or ":" not in head:
        return
    if not _is_public(text):
        message = "Media are given as a data URL, or as an http or https address of the public internet."
        raise bad_field(place, message)


def _is_public(text: str) -> bool:
    if len(text) > _HEAD or "\\" in text or any(character <= " " or character == "\x7f" for character in text):
        return False
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    authority = _AUTHORITY.match(text)  # where readers disagree about its end, it has one of these in it
    is_plain = authority is not None and authority[0].isascii() and not set("@#%") & set(authority[0])
    return is_plain and parts.scheme in ("http", "https") and bool(host) and reach_of_host(host) is Reach.PUBLIC
