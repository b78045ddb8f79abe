"""A server that stops in steps: not ready, no new connections, streams end by themselves or are cut, gone."""

import asyncio
import contextlib
import socket
import time
from types import FrameType
from typing import Final

import uvicorn

from apps.gateway.server.stopping import STOPPING
from crun.drain_limits import CUT_S, drain_delay_s, drain_timeout_s

LOOK_S: Final = 0.05
_CUT: Final = "the time to end by itself is over"
"""Why tasks are cancelled: not because their clients left."""


class DrainingServer(uvicorn.Server):
    """uvicorn, but for its way to stop; ends with status 0. The first signal asks, a second one hurries."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._delay_s = drain_delay_s()
        self._timeout_s = drain_timeout_s()
        self._asked_at = 0.0
        self._is_hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if STOPPING.is_asked:
            self._is_hurried = True
        else:
            STOPPING.is_asked = True
            self._asked_at = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to go on to `shutdown`."""
        is_over = await super().on_tick(counter)
        return is_over or (STOPPING.is_asked and self._has_passed(self._asked_at, self._delay_s))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No new connections, idle ones closed; waits for the others, and cuts them when their time is over."""
        cutting = asyncio.create_task(self._cut_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            cutting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await cutting

    async def _cut_in_time(self) -> None:
        since = time.monotonic()
        while not self._has_passed(since, self._timeout_s):  # noqa: ASYNC110 - a signal handler may set no event
            await asyncio.sleep(LOOK_S)
        for last in (False, True):
            for task in list(self.server_state.tasks):
                task.cancel(_CUT)
            if last:
                break
            await asyncio.sleep(CUT_S)
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()

    def _has_passed(self, since: float, limit_s: float) -> bool:
        return self._is_hurried or time.monotonic() - since >= limit_s
