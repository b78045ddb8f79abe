"""The bridges from the event loop to synchronous database calls: their own few threads, a bound on every call."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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


class Busy(Unavailable):
    """All threads of a bridge had something else to do for as long as anybody may wait."""


class TooSlow(Unavailable):
    """The database did not answer in time. What was to be written may be written all the same."""


class LastingBridge:
    """The same for calls that are so many, or so short, that each must not make a connection of its own: a thread keeps
    its one. Whatever is called may be called twice, for a connection that was kept may turn out to be dead."""

    def __init__(self, name: str, *, threads: int = 2) -> None:
        """`name` says in the list of threads, and to who cannot have one, what they are for."""
        self.threads: Final = threads
        self._name = name
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._free = asyncio.Semaphore(threads)
        """Who waits does so here: a thread's queue would hold on to what those wanted who gave up."""
        self._was_used = False

    async def run(self, query: Callable[[], Result], *, over: Callable[[], None] | None = None) -> Result:
        """The result of `query`. Raises Unavailable when the database is away or slower than READ_TIMEOUT_S; what it
        writes may be written all the same then. `over` is called once, when the thread is done with it: that may be
        after this has returned."""
        running: Future[Result] | None = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                await self._free.acquire()
                self._was_used = True
                running = self._pool.submit(_run_once_more, query)
                running.add_done_callback(lambda _: self._thread_is_free(loop, over))
                return await asyncio.wrap_future(running)
        except TimeoutError as error:
            if running is None:
                raise Busy(f"too much waits for {self._name}") from error
            raise TooSlow("the database is too slow") from error
        except Error as error:
            raise Unavailable("the database is away") from error
        finally:
            if running is None and over is not None:
                over()

    def _thread_is_free(self, loop: asyncio.AbstractEventLoop, over: Callable[[], None] | None) -> None:
        """Whether or not anybody waited for its call to the end. Called in the thread."""
        with suppress(RuntimeError):  # nobody is left when the loop is closed
            loop.call_soon_threadsafe(self._free.release)
            if over is not None:
                loop.call_soon_threadsafe(over)

    def close(self) -> None:
        """No new calls. Each thread drops its connection when its call is over; nobody waits for that."""
        if self._was_used:
            everybody = Barrier(self.threads)
            for _ in range(self.threads):
                self._pool.submit(_drop_connection, everybody)
        self._pool.shutdown(wait=False)


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
