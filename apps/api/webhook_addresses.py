"""The address that a webhook is sent to: the name is resolved here, and every address it has must be a public one.

The connection then goes to the very address that was checked (webhook_transport), so that a name which changes its
mind in between gains nothing.

Customers choose the names and so the name servers, which may be as slow as they like, and a lookup cannot be
interrupted. So lookups run in threads of their own that nobody waits for, a few of one organization at a time."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from ipaddress import ip_address
from typing import Any, Final

import httpx

from apps.billing.alerts.addresses import HTTPS_PORT
from apps.core.addresses import Address, AddressRefused, is_public

RESOLVE_TIMEOUT_S: Final = 4.0
PLACE_TIMEOUT_S: Final = 4.0
"""How long a lookup waits for a place among those that run."""
MAX_LOOKUPS: Final = 64
MAX_LOOKUPS_OF_ONE: Final = 4
_POLL_S: Final = 0.02

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""The addresses of a host name. Raises OSError when it has none."""


class NotLookedUp(Exception):
    """There was no free place for the lookup: nothing was tried, and nothing is known about the name."""


class Lookups:
    """The lookups of one process, each in a daemon thread, so that neither an event loop nor the end of the process
    waits for one. At most `most` run at the same time, and `most_of_one` of one owner."""

    def __init__(self, *, most: int = MAX_LOOKUPS, most_of_one: int = MAX_LOOKUPS_OF_ONE) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    async def resolve(
        self, owner: str, host: str, port: int, *, on_start: Callable[[], None] = lambda: None
    ) -> Sequence[Address]:
        """The addresses of the host, in the order of the system's resolver; `on_start` is called when it is asked.

        Raises NotLookedUp when no place became free in PLACE_TIMEOUT_S, OSError when the name has no address, and
        TimeoutError after RESOLVE_TIMEOUT_S."""
        await self._place(owner)
        on_start()
        found: Future[list[Any]] = Future()
        self._start(lambda: self._look_up(owner, host, port, found), owner)
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            entries = await asyncio.wrap_future(found)
        return [ip_address(entry[4][0]) for entry in entries]

    async def _place(self, owner: str) -> None:
        # Places are freed by threads and for any event loop, so they are asked for now and then, not waited on.
        try:
            async with asyncio.timeout(PLACE_TIMEOUT_S):
                while not self._take(owner):  # noqa: ASYNC110 - a thread frees the place, perhaps one that an earlier event loop began
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise NotLookedUp from error

    def _take(self, owner: str) -> bool:
        with self._lock:
            is_free = self._running[owner] < self._most_of_one and self._running.total() < self._most
            if is_free:
                self._running[owner] += 1
            return is_free

    def _start(self, work: Callable[[], None], owner: str) -> None:
        try:
            threading.Thread(target=work, name="webhook lookup", daemon=True).start()
        except RuntimeError as error:  # the system gives no more threads
            self._leave(owner)
            raise NotLookedUp from error

    def _look_up(self, owner: str, host: str, port: int, found: "Future[list[Any]]") -> None:
        try:
            if not found.set_running_or_notify_cancel():
                return
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:  # what cannot be written as a host name has no address
            found.set_exception(OSError(str(error)))
        except OSError as error:
            found.set_exception(error)
        else:
            found.set_result(entries)
        finally:
            self._leave(owner)

    def _leave(self, owner: str) -> None:
        with self._lock:
            self._running[owner] -= 1
            if not self._running[owner]:
                del self._running[owner]


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
