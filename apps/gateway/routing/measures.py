"""How fast and how reliably a route answered in the last half hour, as this worker saw it: counts of a fixed size.

Times and rates fall into buckets that are a quarter of a power of two wide, so a percentile is right to within a tenth.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

SLOT_S: Final = 300
SLOTS: Final = 6
PERCENTILES: Final = (50, 75, 90, 99)
_PER_DOUBLING: Final = 4

Counts = dict[int, int]


class _Slot:
    """Five minutes."""

    __slots__ = ("answered", "cached", "failed", "input", "latencies", "rates", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.answered = 0
        self.failed = 0
        self.input = 0
        self.cached = 0
        self.latencies: Counts = {}
        self.rates: Counts = {}


class RouteMeasures:
    """Of one route. What is older than half an hour is forgotten."""

    __slots__ = ("_clock", "_slots")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._slots: deque[_Slot] = deque(maxlen=SLOTS)

    def note_answered(self) -> None:
        """A request has its whole answer."""
        self._now().answered += 1

    def note_failed(self) -> None:
        """The route could not be used, or its answer broke off."""
        self._now().failed += 1

    def note_speed(self, latency_ms: float, tokens_per_s: float) -> None:
        """A request has its whole answer, so fast; a rate of 0 is none."""
        slot = self._now()
        slot.answered += 1
        _count(slot.latencies, latency_ms)
        if tokens_per_s:
            _count(slot.rates, tokens_per_s)

    def note_input(self, tokens: int, cached: int) -> None:
        """What an answered request read, and how much of that a prompt cache had."""
        slot = self._now()
        slot.input += tokens
        slot.cached += cached

    def cache_hit_rate(self) -> float | None:
        """The share of all input that prompt caches had; None without any input."""
        tokens = sum(slot.input for slot in self._recent())
        return sum(slot.cached for slot in self._recent()) / tokens if tokens else None

    def uptime(self) -> float | None:
        """The share of requests that were answered; None without any."""
        answered = sum(slot.answered for slot in self._recent())
        failed = sum(slot.failed for slot in self._recent())
        return answered / (answered + failed) if answered + failed else None

    def latency_ms(self) -> dict[str, float] | None:
        """Percentiles to the first byte: `{"p50": ...}`; None while nothing is known."""
        return _percentiles(slot.latencies for slot in self._recent())

    def tokens_per_s(self) -> dict[str, float] | None:
        """Percentiles of output: so many per cent of the answers were slower. None while nothing is known."""
        return _percentiles(slot.rates for slot in self._recent())

    def _now(self) -> _Slot:
        now, slots = self._clock(), self._slots
        if not slots or now >= slots[-1].until:
            slots.append(_Slot((now // SLOT_S + 1) * SLOT_S))
        return slots[-1]

    def _recent(self) -> list[_Slot]:
        oldest = (self._clock() // SLOT_S + 1 - SLOTS) * SLOT_S
        return [slot for slot in self._slots if slot.until > oldest]


def _count(counts: Counts, value: float) -> None:
    bucket = int(_PER_DOUBLING * math.log2(value)) if value > 1 else 0
    counts[bucket] = counts.get(bucket, 0) + 1


def _percentiles(slots: Iterable[Counts]) -> dict[str, float] | None:
    whole: Counts = {}
    for counts in slots:
        for bucket, number in counts.items():
            whole[bucket] = whole.get(bucket, 0) + number
    if not whole:
        return None
    total = sum(whole.values())
    return {f"p{percent}": _value_at(whole, total * percent / 100) for percent in PERCENTILES}


def _value_at(counts: Counts, rank: float) -> float:
    """The middle of the bucket that holds what has this rank."""
    seen, bucket = 0, 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    return float(f"{2 ** ((bucket + 0.5) / _PER_DOUBLING):.3g}")
