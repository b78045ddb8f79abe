"""The bridges from the event loop to synchronous database calls: their own few threads, a bound on every call."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Final, TypeVar

from django.db import Error, InterfaceError, OperationalError, close_old_connections, connections

from apps.core.errors import Unavailable

READ_TIMEOUT_S: Final = 2.0
THREADS: Final = 4

Result = TypeVar("Result")


class DatabaseBridge:
    """Runs reads of the domain apps in threads. A request whose key and whose organization's money are known needs none
    of them; one that finds the money unknown waits for its rebuild here."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="database")

    async def read(self, query: Callable[[], Result]) -> Result:
        """The result of `query`. Raises Unavailable when the database is away or slower than READ_TIMEOUT_S."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await loop.run_in_executor(self._threads, _run, query)
        except (Error, TimeoutError) as error:
            raise Unavailable("the database is away") from error

    def close(self) -> None:
        """No new reads; those under way are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _run(query: Callable[[], Result]) -> Result:
    close_old_connections()
    try:
        return query()
    finally:
        close_old_connections()


class LastingBridge:
    """The same for calls that are so many, or so short, that each must not make a connection of its own: a thread keeps
    its one. Whatever is called may be called twice, for a connection that was kept may turn out to be dead."""

    THREADS: Final = 2

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(self.THREADS, thread_name_prefix="stored responses")

    async def run(self, query: Callable[[], Result]) -> Result:
        """The result of `query`. Raises Unavailable when the database is away or slower than READ_TIMEOUT_S; what it
        writes may be written all the same then."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await loop.run_in_executor(self._threads, _run_once_more, query)
        except (Error, TimeoutError) as error:
            raise Unavailable("the database is away") from error

    def close(self) -> None:
        """No new calls. Each thread drops its connection when its call is over; nobody waits for that."""
        everybody = Barrier(self.THREADS)
        for _ in range(self.THREADS):
            self._threads.submit(_drop_connection, everybody)
        self._threads.shutdown(wait=False)


def _run_once_more(query: Callable[[], Result]) -> Result:
    try:
        return query()
    except (OperationalError, InterfaceError):
        connections.close_all()
        return query()


def _drop_connection(everybody: Barrier) -> None:
    """Each thread takes one of these, because none goes on before all have one."""
    connections.close_all()
    with suppress(BrokenBarrierError):
        everybody.wait(READ_TIMEOUT_S)
