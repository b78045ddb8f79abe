"""A bound on every wait of a request, with one timer for all of them."""

import asyncio
from enum import StrEnum
from functools import cache

from django.conf import settings

TICKS_PER_LIMIT = 10


class Wait(StrEnum):
    """What a request can be waiting for."""

    FIRST_BYTE = "first byte"
    NEXT_BYTES = "next bytes"
    WHOLE_ANSWER = "whole answer"
    CLIENT = "client"


@cache
def configured_limits() -> dict[Wait, float]:
    """Seconds that each wait may take."""
    return {
        Wait.FIRST_BYTE: settings.UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        Wait.NEXT_BYTES: settings.UPSTREAM_IDLE_TIMEOUT_S,
        Wait.WHOLE_ANSWER: settings.UPSTREAM_TOTAL_TIMEOUT_S,
        Wait.CLIENT: settings.CLIENT_WRITE_TIMEOUT_S,
    }


class Deadline:
    """Cancels the task that made or adopted it when one of its waits takes too long; `expired` then says which.

    A wait only notes its time. One timer looks at it ten times per shortest limit, so a bound is kept to within a
    tenth, and thousands of idle streams cost next to nothing."""

    def __init__(self) -> None:
        self._limits_s = configured_limits()
        self._tick_s = min(self._limits_s.values()) / TICKS_PER_LIMIT
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._latest = self._loop.time() + self._limits_s[Wait.WHOLE_ANSWER]
        self._wait = Wait.WHOLE_ANSWER
        self._until = self._latest
        self._timer = self._loop.call_later(self._tick_s, self._look)
        self.expired: Wait | None = None

    def adopt(self) -> None:
        """From now on it is the running task that waits."""
        self._task = asyncio.current_task()

    def expect(self, wait: Wait) -> None:
        """From now on the task waits for this."""
        self._wait = wait
        self._until = self._loop.time() + self._limits_s[wait]

    def stop(self) -> None:
        """No bound any more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if now < self._until and now < self._latest:
            self._timer = self._loop.call_later(self._tick_s, self._look)
            return
        self.expired = self._wait if now >= self._until else Wait.WHOLE_ANSWER
        if self._task is not None:
            self._task.cancel()

    def took_effect(self) -> bool:
        """In a handler of CancelledError: whether it was this deadline. The task is then no longer being cancelled."""
        if self.expired is None or self._task is None:
            return False
        return self._task.uncancel() == 0
