"""A bound on every wait of a request, with one timer for all of them."""

import asyncio
from enum import IntEnum
from functools import cache

from django.conf import settings

TICKS_PER_LIMIT = 10


class Wait(IntEnum):
    """What a request can be waiting for. The numbers are places in `configured_limits`."""

    FIRST_BYTE = 0
    NEXT_BYTES = 1
    WHOLE_ANSWER = 2
    CLIENT = 3


FIRST_BYTE, NEXT_BYTES, WHOLE_ANSWER, CLIENT = Wait
"""For each chunk: on Python 3.11 a member costs three times as much to look up in its class."""


@cache
def configured_limits() -> list[float]:
    """Seconds that each wait may take."""
    return [
        settings.UPSTREAM_FIRST_BYTE_TIMEOUT_S,
        settings.UPSTREAM_IDLE_TIMEOUT_S,
        settings.UPSTREAM_TOTAL_TIMEOUT_S,
        settings.CLIENT_WRITE_TIMEOUT_S,
    ]


class Deadline:
    """Cancels the task that made or adopted it when one of its waits takes too long; `expired` then says which.

    A new wait only changes two numbers. One timer looks at them ten times per shortest limit, so a bound is kept to
    within two of those looks, and thousands of idle streams cost next to nothing."""

    def __init__(self) -> None:
        self._limits_s = configured_limits()
        self._tick_s = min(self._limits_s) / TICKS_PER_LIMIT
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self._loop)
        self._since = self._loop.time()
        self._latest = self._since + self._limits_s[WHOLE_ANSWER]
        self._wait = WHOLE_ANSWER
        self._waits = self._waits_seen = 0
        self._timer = self._loop.call_later(self._tick_s, self._look)
        self.expired: Wait | None = None
        self.first_byte_s: float | None = None
        """The limit of `bound_first_byte`."""

    def bound_first_byte(self, limit_s: float | None) -> None:
        """A limit of a model's own for the first byte of a stream; None: the configured one again."""
        self.first_byte_s = limit_s
        self._limits_s = [*configured_limits()]
        if limit_s is not None:
            self._limits_s[FIRST_BYTE] = limit_s
        self._tick_s = min(self._limits_s) / TICKS_PER_LIMIT
        self._timer.cancel()
        self._timer = self._loop.call_later(self._tick_s, self._look)

    def adopt(self) -> None:
        """From now on it is the running task that waits."""
        self._task = asyncio.current_task()

    def expect(self, wait: Wait) -> None:
        """From now on the task waits for this."""
        self._wait = wait
        self._waits += 1

    def stop(self) -> None:
        """No bound any more."""
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        if self._waits != self._waits_seen:
            self._waits_seen, self._since = self._waits, now
        if now >= self._latest:
            self._expire(WHOLE_ANSWER)
        elif now - self._since >= self._limits_s[self._wait]:
            self._expire(self._wait)
        else:
            self._timer = self._loop.call_later(self._tick_s, self._look)

    def _expire(self, wait: Wait) -> None:
        self.expired = wait
        if self._task is not None:
            self._task.cancel()

    @property
    def expired_wait(self) -> str:
        """What took too long, for a sentence: `next bytes`."""
        return "" if self.expired is None else self.expired.name.lower().replace("_", " ")

    def took_effect(self) -> bool:
        """In a handler of CancelledError: whether it was this deadline. The task is then no longer being cancelled."""
        if self.expired is None or self._task is None:
            return False
        return self._task.uncancel() == 0
