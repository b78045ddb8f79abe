"""Which network addresses may be connected to on behalf of whom: the public internet, private networks, and places that
nobody may be led to. Pure.

A name says nothing: whoever connects resolves it once, asks `check_addresses`, and connects to what was checked."""

import re
from collections.abc import Sequence
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from apps.core.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reach(Enum):
    """What kind of place an address is."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Of this machine or a network of its own: whoever runs the installation may allow it."""
    NEVER = "never"
    """Metadata of clouds, link-local, multicast, and addresses that carry another one inside."""


class AddressRefused(Exception):
    """The name leads to a place where no connection may go."""


def _networks(*texts: str) -> list[Network]:
    return [ip_network(text) for text in texts]


ANY_PRIVATE: Final[tuple[Network, ...]] = tuple(_networks("0.0.0.0/0", "::/0"))
"""All private networks are allowed."""
_PRIVATE_V4: Final = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
)  # fmt: skip
"""IPv4 that is not the public internet, with the list below all of IANA's registry of special-purpose addresses."""
_NEVER_V4: Final = _networks(
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/3",
    "100.100.100.200/32", "168.63.129.16/32",  # by these, clouds answer their own machines
)  # fmt: skip
_PRIVATE_V6: Final = _networks("::1/128", "fc00::/7")
_NEVER_V6: Final = _networks(
    "fd00:ec2::/32", "fd20:ce::/64", "fd00:42::/32",  # metadata of clouds, within fc00::/7
    "2001::/23",  # protocol assignments, Teredo among them, which carries IPv4 inside
    "2001:db8::/32", "2002::/16",  # 6to4 carries IPv4 inside
    "3fff::/20", "3ffe::/16",
)  # fmt: skip
_PUBLIC_V6: Final = IPv6Network("2000::/3")
"""All that is outside, and not private (mapped, translated, local to a link, multicast), is never reached."""
_NAME: Final = re.compile(r"(?=.{1,253}\Z)(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "intranet", "home", "lan", "corp", "arpa", "onion", "test")
_METADATA_NAMES: Final = ("metadata.google.internal", "metadata.goog", "metadata", "instance-data")


def private_networks(text: str) -> tuple[Network, ...]:
    """The networks that a setting allows: `on` for all, `off` for none, or a list with commas between them: addresses,
    and networks such as 10.1.0.0/16. Raises ConfigurationError."""
    if text.strip().lower() in ("on", "off"):
        return ANY_PRIVATE if text.strip().lower() == "on" else ()
    try:
        return tuple(ip_network(part.strip()) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"CRUN_PRIVATE_UPSTREAMS: on, off, or networks such as 10.1.0.0/16: {error}") from None


def reach_of(address: Address) -> Reach:
    """What kind of place an address is."""
    if isinstance(address, IPv4Address):
        if any(address in network for network in _NEVER_V4):
            return Reach.NEVER
        return Reach.PRIVATE if any(address in network for network in _PRIVATE_V4) else Reach.PUBLIC
    if address.scope_id is not None or any(address in network for network in _NEVER_V6):
        return Reach.NEVER
    if address in _PUBLIC_V6:
        return Reach.PUBLIC
    return Reach.PRIVATE if any(address in network for network in _PRIVATE_V6) else Reach.NEVER


def is_public(address: Address) -> bool:
    """Whether the address is one of the public internet, and carries no other address inside."""
    return reach_of(address) is Reach.PUBLIC


def reach_of_host(host: str) -> Reach:
    """What the text of a URL's host tells, lower-case and without brackets. A full name is PUBLIC as far as that goes.

    An address has one spelling: `127.1`, `0x7f000001` and the like are NEVER, because readers disagree about them."""
    try:
        return reach_of(ip_address(host))
    except ValueError:
        pass
    name = host.removesuffix(".")
    last = name.rpartition(".")[2]
    if not _NAME.fullmatch(name) or _NUMBER.fullmatch(last) or name in _METADATA_NAMES:
        return Reach.NEVER
    return Reach.PRIVATE if last in _LOCAL_NAMES or last == name else Reach.PUBLIC


def may_reach(address: Address, private: Sequence[Network]) -> bool:
    """Whether a connection may go there; `private` are the networks that are allowed beside the public internet."""
    reach = reach_of(address)
    if reach is Reach.PRIVATE:
        return any(address in network for network in private)
    return reach is Reach.PUBLIC


def check_addresses(found: Sequence[str], private: Sequence[Network]) -> list[Address]:
    """The addresses that a name was resolved to, as the resolver writes them. Raises AddressRefused when any of them is
    forbidden: a name with two kinds of addresses is a trap."""
    addresses = [ip_address(each) for each in found]
    if not all(may_reach(address, private) for address in addresses):
        raise AddressRefused("the name leads to an address that may not be connected to")
    return addresses


def host_problem(host: str, private: Sequence[Network]) -> str:
    """Why a host, as it stands in a URL, may not be connected to; "" when its text says nothing against it."""
    reach = reach_of_host(host)
    if reach is Reach.NEVER:
        return (
            "must name a host, or an address in its usual spelling, that is neither link-local nor a cloud's metadata"
        )
    if reach is Reach.PRIVATE and not _is_allowed_text(host, private):
        return "is in a private network, and CRUN_PRIVATE_UPSTREAMS does not allow that"
    return ""


def _is_allowed_text(host: str, private: Sequence[Network]) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return bool(private)  # a name: what it leads to is looked at by whoever connects
    return may_reach(address, private)
