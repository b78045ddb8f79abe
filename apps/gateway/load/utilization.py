"""How busy the event loop of this worker is, measured by one timer, and what follows from it."""

import asyncio
import logging
import time
from typing import Final

from apps.core.worker_states import WorkerState
from apps.gateway.load.doorway import Doorway
from apps.gateway.load.shedding import Level, Shedding

SAMPLE_S: Final = 0.25
log = logging.getLogger(__name__)


class Utilization:
    """Samples how late the loop is and what share of a processor its thread used, and tells `shedding`."""

    def __init__(self, doorway: Doorway, shedding: Shedding) -> None:
        self._loop = asyncio.get_running_loop()
        self._doorway = doorway
        self._shedding = shedding
        self._at = time.monotonic()
        self._cpu_s = time.thread_time()
        self.busy = 0.0
        """The share of a processor that the loop's thread used."""
        self.late_s = 0.0
        """How far the loop was behind, or how long a lone request waited at the doorway."""
        self._timer = self._loop.call_later(SAMPLE_S, self._sample)

    def state(self) -> WorkerState:
        """What others may know of it."""
        return WorkerState(
            shedding=self._shedding.level,
            refused=self._shedding.refused,
            waiting=self._doorway.waiting,
            busy=round(self.busy, 3),
            late_s=round(self.late_s, 4),
        )

    def stop(self) -> None:
        """No more samples."""
        self._timer.cancel()

    def _sample(self) -> None:
        now, cpu_s = time.monotonic(), time.thread_time()
        passed_s = now - self._at
        self.busy = (cpu_s - self._cpu_s) / passed_s
        self.late_s = max(passed_s - SAMPLE_S, self._doorway.take_longest_wait_s())
        self._at, self._cpu_s = now, cpu_s
        if self._shedding.observe(self.late_s, self.busy):
            self._tell()
        self._timer = self._loop.call_later(SAMPLE_S, self._sample)

    def _tell(self) -> None:
        shedding = self._shedding
        log.log(
            logging.INFO if shedding.level is Level.NONE else logging.WARNING,
            "load shedding: %s",
            shedding.level.name.lower(),
            extra={
                "busy": round(self.busy, 2),
                "late_ms": round(1000 * self.late_s),
                "waiting": self._doorway.waiting,
                "refused": shedding.refused,
            },
        )
