"""Noticing that a client has closed its connection while it is being served."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from apps.gateway.server.cancellation import CLIENT_GONE

WATCH_AFTER_S: Final = 0.05
"""An answer that is ready sooner needs no watching, which saves a task for every short request."""

Receive = Callable[[], Awaitable[Any]]


class DisconnectWatch:
    """Cancels the task that made it when its client leaves: at once, or after WATCH_AFTER_S if it left before that."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._served = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self._start = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """The answer is complete, or nobody needs it any more."""
        self._start.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._served is not None:
            self._served.cancel(CLIENT_GONE)
