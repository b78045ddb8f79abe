"""Who is sent away when this worker cannot keep up: the lowest priority first, and nobody before it is late. Pure, but
for the dice.

Late is what its callers feel: how far the event loop is behind, or how long a request waits at the doorway with none
of its own organization before it. A full processor alone is no reason: a worker that is busy and in time does its job.
"""

import random
from collections import deque
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from apps.core.priorities import Priority
from apps.gateway.errors import GATEWAY_OVERLOADED, GatewayError

SAMPLES: Final = 4
"""What it decides by: a single hitch sends nobody away."""
RELEASE: Final = 0.5
"""A level ends when all samples are below this share of its threshold."""
RETRY_AFTER_S: Final = (1.0, 3.0)
"""From, to: at random, or all who were sent away would be back at once."""


class Level(IntEnum):
    """Who is sent away: everybody whose priority is below it."""

    NONE = 0
    LOW = 1
    STANDARD = 2
    ALL = 3


_OF_TIER: Final = {"flex": Priority.LOW, "batch": Priority.LOW, "priority": Priority.HIGH}
"""Tiers that say how long their requests may wait. `priority` costs more."""


def priority_of(service_tier: str, of_key: int, *, is_sandbox: bool) -> int:
    """The priority of a request with such a key that asks for this tier."""
    return Priority.LOW if is_sandbox else _OF_TIER.get(service_tier, of_key)


class Shedding:
    """Told how late and how busy the worker is, again and again; says who must go."""

    def __init__(self, late_s: Sequence[float], busy_share: float) -> None:
        """`late_s`: how late the worker must be for the levels LOW, STANDARD and ALL; empty: nobody is sent away.
        `busy_share`: of a processor; below it, it is not the worker's own load that makes it late."""
        self._thresholds = tuple(late_s)
        self._busy_share = busy_share
        self._late_s: deque[float] = deque(maxlen=SAMPLES)
        self.level = Level.NONE
        self.refused = 0
        """Requests that were sent away."""

    def observe(self, late_s: float, busy: float) -> bool:
        """The next sample: seconds late, and the share of a processor that the loop used. Whether the level changes."""
        self._late_s.append(late_s)
        if len(self._late_s) < SAMPLES:
            return False
        wanted = self._wanted(busy)
        if wanted == self.level:
            return False
        self.level = wanted
        self._late_s.clear()
        return True

    def check(self, service_tier: str, of_key: int, *, is_sandbox: bool) -> None:
        """For a new request. Raises GatewayError (503) when it must go."""
        if priority_of(service_tier, of_key, is_sandbox=is_sandbox) < self.level:
            self.refused += 1
            wait_ms = int(1000 * random.uniform(*RETRY_AFTER_S))  # noqa: S311 - spreads retries
            message = "This gateway has more to do than it can; requests of your priority are served again soon."
            raise GatewayError(GATEWAY_OVERLOADED, message, retry_after_ms=wait_ms)

    def _wanted(self, busy: float) -> Level:
        """Up at once to what all samples ask for; down a level at a time."""
        least, most = min(self._late_s), max(self._late_s)
        if busy >= self._busy_share:
            asked = Level(sum(least >= threshold for threshold in self._thresholds))
            if asked > self.level:
                return asked
        if self.level and most < RELEASE * self._thresholds[self.level - 1]:
            return Level(self.level - 1)
        return self.level
