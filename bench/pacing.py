"""Calls at exact moments. An event loop's own timers go off on whole milliseconds, all that are due at once."""

import asyncio
import ctypes
import heapq
import itertools
import os
from collections.abc import Callable
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_TFD_TIMER_ABSTIME: Final = 1
_NANOS_PER_S: Final = 1_000_000_000


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: the interval, which stays 0, and the moment."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "at_s", "at_ns")]


class Pacer:
    """One kernel timer (timerfd) for all calls of an event loop. Linux only."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()  # two calls at one moment are made in the order in which they were asked for
        self._spec = _TimerSpec()
        asyncio.get_running_loop().add_reader(self._timer, self._on_time)

    def call_at(self, moment_ns: int, call: Callable[[], None]) -> None:
        """Make this call at this moment of time.monotonic_ns(), or at once when it is past."""
        heapq.heappush(self._calls, (moment_ns, next(self._numbers), call))
        if self._calls[0][2] is call:
            self._arm()

    def _on_time(self) -> None:
        os.read(self._timer, 8)
        _, _, call = heapq.heappop(self._calls)
        call()
        if self._calls:
            self._arm()

    def _arm(self) -> None:
        self._spec.at_s, self._spec.at_ns = divmod(self._calls[0][0], _NANOS_PER_S)
        self._libc.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)
