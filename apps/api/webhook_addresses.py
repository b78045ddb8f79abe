"""The address that a webhook is sent to: the name is resolved here, and every address it has must be a public one.

The connection then goes to the very address that was checked (webhook_transport), so that a name which changes its
mind in between gains nothing."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final

import httpx

from apps.billing.alerts.addresses import HTTPS_PORT, Address, is_public

RESOLVE_TIMEOUT_S: Final = 4.0

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""The addresses of a host name. Raises OSError when it has none."""


class AddressRefused(Exception):
    """The name leads to a place where webhooks may not go."""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of the host, in the order of the system's resolver. Raises OSError, also when it takes too long."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(RESOLVE_TIMEOUT_S):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(entry[4][0]) for entry in found]


async def checked_address(url: httpx.URL, resolve: Resolve, *, allow_private: bool = False) -> Address:
    """The address to connect to. Raises AddressRefused when any address of the name is not public, OSError when it
    has none."""
    host = url.raw_host.decode("ascii").removeprefix("[").removesuffix("]")
    try:
        addresses: Sequence[Address] = [ip_address(host)]
    except ValueError:
        addresses = await resolve(host, url.port or HTTPS_PORT)
    if not addresses:
        raise OSError("the name has no address")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise AddressRefused("the name leads to an address that is not public")
    return addresses[0]
