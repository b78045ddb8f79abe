"""From samples to the figures that are quoted: medians over the rounds and their ratios. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.rounds import LONG, MEDIUM, SHORT, STEADY, WHOLE, Sample

REQUEST_LIMIT = 8.0
CHUNK_LIMIT = 2.0


@dataclass(frozen=True)
class Cost:
    """CPU of one target, in microseconds: the median over the rounds, and the least and the most."""

    median_us: float
    least_us: float
    most_us: float


@dataclass(frozen=True)
class Comparison:
    """The gateway next to nginx as it comes and to a tuned one. `ratio` and `tuned_ratio` are of the medians."""

    what: str
    gateway: Cost
    nginx: Cost | None
    tuned: Cost | None
    limit: float | None

    @property
    def ratio(self) -> float | None:
        return self.gateway.median_us / self.nginx.median_us if self.nginx else None

    @property
    def tuned_ratio(self) -> float | None:
        return self.gateway.median_us / self.tuned.median_us if self.tuned else None

    @property
    def is_missed(self) -> bool:
        """Whether there is a limit, and the ratio is above it."""
        return self.limit is not None and self.ratio is not None and self.ratio > self.limit


Rounds = dict[str, Sample]
"""The samples of one target in one round, by load."""


def request_us(samples: Rounds) -> float:
    """CPU per answer in one piece."""
    return _cpu_us(samples[WHOLE.name]) / WHOLE.requests


def steady_request_us(samples: Rounds) -> float:
    """The same when requests come one by one, as many a second for everybody: nobody finds work waiting in heaps."""
    return _cpu_us(samples[STEADY.name]) / STEADY.requests


def raw_chunk_us(samples: Rounds) -> float:
    """All CPU of the streams of 100 over their chunks: a hundredth of what a request costs is in it."""
    return _cpu_us(samples[MEDIUM.name]) / (MEDIUM.requests * MEDIUM.chunks)


def slope_chunk_us(samples: Rounds) -> float:
    """What one chunk more costs: the difference between a stream of 220 and one of 20, over 200."""
    return (_stream_us(samples, LONG.name) - _stream_us(samples, SHORT.name)) / (LONG.chunks - SHORT.chunks)


def opening_us(samples: Rounds) -> float:
    """What a stream costs beside its chunks: a stream of 20 without 20 times the slope."""
    return _stream_us(samples, SHORT.name) - SHORT.chunks * slope_chunk_us(samples)


QUANTITIES: tuple[tuple[str, Callable[[Rounds], float], float | None], ...] = (
    ("per request, non-stream", request_us, REQUEST_LIMIT),
    ("per request, 250 a second", steady_request_us, None),
    ("per chunk, all CPU / chunks", raw_chunk_us, CHUNK_LIMIT),
    ("per chunk, slope 20..220", slope_chunk_us, None),
    ("per stream beside its chunks", opening_us, None),
)


def compare(samples: Sequence[Sample]) -> list[Comparison]:
    """Every quantity, gateway next to nginx."""
    by_target = {name: [one for one in samples if one.target == name] for name in ("gateway", "nginx", "nginx tuned")}
    return [
        Comparison(
            what,
            gateway=_cost(by_target["gateway"], quantity),
            nginx=_cost(by_target["nginx"], quantity) if by_target["nginx"] else None,
            tuned=_cost(by_target["nginx tuned"], quantity) if by_target["nginx tuned"] else None,
            limit=limit,
        )
        for what, quantity, limit in QUANTITIES
    ]


def median_figure(samples: Sequence[Sample], figure: str) -> float | None:
    """The median over the rounds of something the load generator saw; None when these samples do not have it."""
    found = [one.figures[figure] for one in samples if figure in one.figures]
    return median(found) if found else None


def median_wakeups(samples: Sequence[Sample]) -> float | None:
    """The median over the rounds of wake-ups per request, or per chunk of a stream; None for a direct connection."""
    found = [one.wakeups / (one.requests * max(one.chunks, 1)) for one in samples if one.wakeups is not None]
    return median(found) if found else None


def _cost(samples: Sequence[Sample], quantity: Callable[[Rounds], float]) -> Cost:
    rounds: dict[int, Rounds] = {}
    for one in samples:
        rounds.setdefault(one.round, {})[one.load] = one
    values = [quantity(of_round) for of_round in rounds.values()]
    return Cost(median(values), min(values), max(values))


def _stream_us(samples: Rounds, load: str) -> float:
    return _cpu_us(samples[load]) / samples[load].requests


def _cpu_us(sample: Sample) -> float:
    assert sample.cpu_s is not None
    return sample.cpu_s * 1e6
