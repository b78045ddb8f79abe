"""The measurement: every load on every target in turn, several rounds, CPU time read around each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.cpu import cpu_s, tree_cpu_s, wakeups
from bench.driver import Load, LoadGenerator, Target
from bench.installation import Installation

WHOLE = Load("non-stream", requests=3000)
STEADY = Load("non-stream, 250/s", requests=750, per_second=250)
SHORT = Load("stream of 20", requests=256, chunks=20)
MEDIUM = Load("stream of 100", requests=192, chunks=100)
LONG = Load("stream of 220", requests=96, chunks=220)
LOADS = (WHOLE, STEADY, SHORT, MEDIUM, LONG)

ON_DIRECT = (WHOLE, MEDIUM)
"""What a direct connection is asked: it only shows that upstream and load generator are not the bottleneck."""

SPACING = 1.05
"""Streams start evenly spaced, so that requests and chunks of different streams mix as they do in life: this much more
slowly than connections become free."""
SETTLE_S = 0.05
"""After the last answer, for what a server still does for it."""
IDLE_S = 3.0


@dataclass(frozen=True)
class Sample:
    """One load on one target in one round."""

    round: int
    target: str
    load: str
    requests: int
    chunks: int
    cpu_s: float | None
    """Of the target's processes; None for a direct connection."""
    wakeups: int | None
    """How often its processes had been asleep: the fewer, the more work was found waiting at once."""
    figures: dict[str, float]


@dataclass(frozen=True)
class Beside:
    """A process of the installation over the measured part, and in a second without work."""

    name: str
    cpu_s: float
    wall_s: float
    idle_cpu_s_per_s: float


def measure(
    generator: LoadGenerator,
    targets: Sequence[Target],
    *,
    rounds: int,
    pace_ms: float,
    say: Callable[[str], None],
) -> list[Sample]:
    """All rounds. Each starts with another target, so that none is always the first."""
    for target in targets:
        for load in (replace(WHOLE, requests=500), replace(SHORT, requests=64)):
            measure_once(generator, target, load=load, round_number=0)
    samples = []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}")
        first = number % len(targets)
        for load in LOADS:
            for target in [*targets[first:], *targets[:first]]:
                if target.pids or load in ON_DIRECT:
                    spaced = _spaced(load, connections=generator.connections, pace_ms=pace_ms)
                    samples.append(measure_once(generator, target, load=spaced, round_number=number))
    return samples


def measure_once(generator: LoadGenerator, target: Target, *, load: Load, round_number: int) -> Sample:
    """One load on one target. Connecting and warming up are outside of what is counted."""
    generator.prepare(target, load)
    time.sleep(SETTLE_S)
    cpu_before, wakeups_before = _used(target)
    figures = generator.go(target, load)
    time.sleep(SETTLE_S)
    cpu_after, wakeups_after = _used(target)
    return Sample(
        round=round_number,
        target=target.name,
        load=load.name,
        requests=load.requests,
        chunks=load.chunks,
        cpu_s=cpu_after - cpu_before if target.pids else None,
        wakeups=wakeups_after - wakeups_before if target.pids else None,
        figures=figures,
    )


def _spaced(load: Load, *, connections: int, pace_ms: float) -> Load:
    if not load.chunks:
        return load
    return replace(load, per_second=connections * 1000 / (load.chunks * pace_ms * SPACING))


def _used(target: Target) -> tuple[float, int]:
    return sum(cpu_s(pid) for pid in target.pids), sum(wakeups(pid) for pid in target.pids)


class BesideWatch:
    """Watches the processes that work for the gateway beside it, from its making on."""

    def __init__(self, installation: Installation) -> None:
        named = {"gateway": installation.gateway_pids()[0]}
        for name, label in (("worker", "Celery worker"), ("postgres", "PostgreSQL"), ("valkey", "Valkey")):
            pid = installation.pid(name)
            if pid is not None:
                named[label] = pid
        self._pids = named
        before = self._read()
        time.sleep(IDLE_S)
        self._started_at, self._at_start = time.monotonic(), self._read()
        self._idle = {name: (self._at_start[name] - before[name]) / IDLE_S for name in named}

    def stop(self) -> list[Beside]:
        """What they used since the idle time."""
        wall_s, now = time.monotonic() - self._started_at, self._read()
        return [Beside(name, now[name] - self._at_start[name], wall_s, self._idle[name]) for name in self._pids]

    def _read(self) -> dict[str, float]:
        return {name: tree_cpu_s(pid) for name, pid in self._pids.items()}
