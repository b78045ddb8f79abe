"""Which URLs and addresses webhooks may go to: customers name them, so none may lead into the operator's network. Pure.

The text of a URL is checked here when it is entered and before each try. What its name resolves to is checked by
whoever connects (apps/api), by apps/core/addresses.py."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from apps.core.addresses import Reach, is_public, reach_of_host
from apps.core.errors import InvalidInput

MAX_URL_LENGTH: Final = 500
HTTPS_PORT: Final = 443
FIRST_FREE_PORT: Final = 1024
"""Beside 443, ports from here on: lower ones belong to services that must not be spoken to through us."""


def check_url(text: str, *, allow_private: bool = False) -> str:
    """The URL when webhooks may be sent to it as far as its text can tell. Raises InvalidInput with the reason.

    `allow_private` is the operator's setting for development: http and any host are allowed then."""
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text or len(text) > MAX_URL_LENGTH:
        raise InvalidInput(f"a webhook's URL has at most {MAX_URL_LENGTH} printable ASCII characters, without spaces")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidInput("this is no URL; write it like https://example.com/hooks") from error
    if parts.scheme != "https" and not (allow_private and parts.scheme == "http"):
        raise InvalidInput("a webhook's URL begins with https://")
    _check_parts(text, parts)
    if not host:
        raise InvalidInput("a webhook's URL names a host")
    if not allow_private:
        _check_host(host)
        if port is not None and port != HTTPS_PORT and port < FIRST_FREE_PORT:
            raise InvalidInput(f"a webhook's port is {HTTPS_PORT}, or {FIRST_FREE_PORT} and above")
    return text


def host_of(url: str) -> str:
    """The host of a URL, and its port where it names one: what may be shown to whoever may not see all of it."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _check_parts(text: str, parts: SplitResult) -> None:
    if "@" in parts.netloc or "#" in text:
        raise InvalidInput("a webhook's URL has no user name and no part after #; the signature tells who sends")


def _check_host(host: str) -> None:
    """A public name with a dot in it, or a public address in its one usual spelling."""
    try:
        if not is_public(ip_address(host)):
            raise InvalidInput("this address is not a public one")
    except ValueError:
        reach = reach_of_host(host)
        if reach is Reach.NEVER or "." not in host.removesuffix("."):
            raise InvalidInput("a webhook's host is a full name such as hooks.example.com") from None
        if reach is Reach.PRIVATE:
            raise InvalidInput("this name belongs to a private network") from None
