"""The one bridge from the event loop to synchronous database reads: its own few threads, a bound on every call."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from django.db import Error, close_old_connections

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
