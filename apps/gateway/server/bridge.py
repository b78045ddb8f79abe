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
        self._free = asyncio.Semaphore(self.THREADS)
        """Who waits does so here: a thread's queue would hold on to what those wanted who gave up."""

    async def run(self, query: Callable[[], Result]) -> Result:
        """The result of `query`. Raises Unavailable when the database is away or slower than READ_TIMEOUT_S; what it
        writes may be written all the same then."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._free.acquire()
                running = self._threads.submit(_run_once_more, query)
                running.add_done_callback(lambda _: self._release(loop))
                return await asyncio.wrap_future(running)
        except (Error, TimeoutError) as error:
            raise Unavailable("the database is away") from error

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        """A thread is free, whether or not anybody waited for its call to the end."""
        with suppress(RuntimeError):  # nobody is left when the loop is closed
            loop.call_soon_threadsafe(self._free.release)

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
