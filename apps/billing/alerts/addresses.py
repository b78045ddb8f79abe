"""Which URLs and addresses webhooks may go to: customers name them, so none may lead into the operator's network. Pure.

The text of a URL is checked here when it is entered and before each try. What its name resolves to is checked by
whoever connects (apps/api), with `is_public`."""

import re
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import SplitResult, urlsplit

from apps.core.errors import InvalidInput

MAX_URL_LENGTH: Final = 500
HTTPS_PORT: Final = 443
FIRST_FREE_PORT: Final = 1024
"""Beside 443, ports from here on: lower ones belong to services that must not be spoken to through us."""

Address = IPv4Address | IPv6Address

_FORBIDDEN: Final = [
    ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/3",
        "168.63.129.16/32",  # a public address by which one cloud answers its own machines
    )
]  # fmt: skip
"""IPv4 that is not the public internet, from IANA's registry of special-purpose addresses."""
_PUBLIC_V6: Final = IPv6Network("2000::/3")
_FORBIDDEN_V6: Final = [
    ip_network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo among them, which carries IPv4 inside
        "2001:db8::/32", "2002::/16",  # 6to4 carries IPv4 inside
        "3fff::/20", "3ffe::/16",
    )
]  # fmt: skip
"""Within 2000::/3; all that is outside (mapped, translated, local, multicast) is forbidden at once."""
_NAME: Final = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))+", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "intranet", "home", "lan", "corp", "arpa", "onion", "test")


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


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, and carries no other address inside."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _FORBIDDEN)
    if address.scope_id is not None or address not in _PUBLIC_V6:
        return False
    return not any(address in network for network in _FORBIDDEN_V6)


def _check_parts(text: str, parts: SplitResult) -> None:
    if "@" in parts.netloc or "#" in text:
        raise InvalidInput("a webhook's URL has no user name and no part after #; the signature tells who sends")


def _check_host(host: str) -> None:
    """A public name with a dot in it, or a public address in its one usual spelling."""
    try:
        address: Address | None = ip_address(host)
    except ValueError:
        address = None
    if address is not None:
        if not is_public(address):
            raise InvalidInput("this address is not a public one")
        return
    name = host.removesuffix(".")
    last = name.rpartition(".")[2]
    if not _NAME.fullmatch(name) or _NUMBER.fullmatch(last):
        raise InvalidInput("a webhook's host is a full name such as hooks.example.com")
    if last in _LOCAL_NAMES:
        raise InvalidInput("this name belongs to a private network")
