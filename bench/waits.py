"""`python -m bench.waits`: what the gateway adds to the first byte at half load, and to each chunk at 60 % load.

The same load goes straight to the upstream, through the gateway, and to a server that does nothing but use as much CPU
(`bench/spinning.py`), in turn. What is more than straight is added; what the last one adds is the machine's share.
"""

import operator
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import click

from bench.children import scratch_folder, spinning
from bench.cpu import cpu_s
from bench.driver import Load, Target
from bench.rounds import MEDIUM, SPACING, WHOLE
from bench.stage import Stage, judge, say, stage
from crun.supervisor.listening import free_port

HALF = 0.5
SIXTY = 0.6
STREAMS = replace(MEDIUM, name="stamped streams of 100")
MOST_CONNECTIONS = 512
STARTING_S = 30
"""Of an installation, and ending it."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--requests", default=3000, show_default=True, type=click.IntRange(100), help="A round, in one piece.")
@click.option("--seconds", default=6.0, show_default=True, type=click.FloatRange(1), help="Of streams, in a round.")
@click.option("--pace-ms", default=20.0, show_default=True, help="Time between two chunks of a stream.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, rounds: int, requests: int, seconds: float, pace_ms: float, check: bool) -> None:
    """Print the milliseconds that are added: medians of the rounds. As it comes it takes about 4 minutes."""
    one_s = STREAMS.chunks * pace_ms / 1000
    about_s = 2 * STARTING_S + one_s * 4 + 3 * rounds * (requests / 1000 + seconds + 2 * one_s)
    say(f"{rounds} rounds of two loads, straight and through the gateway: about {about_s / 60:.0f} minutes")
    with stage(concurrency=32, pace_ms=pace_ms, sheds=False) as on:
        say("how many requests a second can be had, and what one and a chunk cost")
        capacity = _go(on, replace(WHOLE, requests=requests), on.gateway)["requests_per_s"]
        half = replace(WHOLE, requests=requests, per_second=capacity * HALF)
        request_s, chunk_s = _cpu_s(on, half), _cpu_s(on, replace(STREAMS, requests=2 * on.generator.connections))
        say(f"half load is {capacity * HALF:.0f} requests a second of {request_s * 1e6:.0f} us")
        with _burner(pace_ms, request_s=request_s, chunk_s=0) as burner:
            first = _added(on, half, burner=burner, rounds=rounds, names=("p50_ms", "p99_ms"))
    connections = min(MOST_CONNECTIONS, max(8, int(SIXTY / chunk_s * pace_ms / 1000)))
    with stage(concurrency=connections, pace_ms=pace_ms, sheds=False) as on:
        say(f"a chunk costs {chunk_s * 1e6:.1f} us, so {connections} streams are {SIXTY:.0%} load")
        names = ("delay_p50_ms", "delay_p99_ms")
        # Evenly spaced, so that there are as many all the time after the first ones.
        per_second = connections / (one_s * SPACING)
        streams = replace(STREAMS, requests=int(per_second * seconds) + connections, per_second=per_second)
        with _burner(pace_ms, request_s=0, chunk_s=chunk_s) as burner:
            chunks = _added(on, streams, burner=burner, rounds=rounds, names=names)
    held = [
        _judged("to the first byte, p50", first["p50_ms"], limit=1.0),
        _judged("to the first byte, p99", first["p99_ms"], limit=5.0),
        _judged("to a chunk, p50", chunks["delay_p50_ms"], limit=2.0),
        _judged("to a chunk, p99", chunks["delay_p99_ms"], limit=2.0),
    ]
    sys.exit(1 if check and not all(held) else 0)


@contextmanager
def _burner(pace_ms: float, *, request_s: float, chunk_s: float) -> Iterator[Target]:
    """A server that does nothing but use as much CPU as the gateway."""
    port = free_port(0)
    with (
        scratch_folder() as folder,
        spinning(folder, port=port, pace_ms=pace_ms, request_us=request_s * 1e6, chunk_us=chunk_s * 1e6),
    ):
        yield Target("burner", port, pids=(), key="none")


@dataclass(frozen=True)
class Added:
    """Medians over the rounds, in milliseconds, less what the direct way takes."""

    by_gateway: float
    by_burner: float


def _added(on: Stage, load: Load, *, burner: Target, rounds: int, names: tuple[str, ...]) -> dict[str, Added]:
    """Figure -> what is added to it. Each round begins with another target."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    targets = [on.direct, on.gateway, burner]
    for number in range(rounds):
        say(f"{load.name}, round {number + 1} of {rounds}")
        first = number % len(targets)
        figures = {target.name: _go(on, load, target) for target in targets[first:] + targets[:first]}
        for name in names:
            for target in (on.gateway, burner):
                found[target.name, name].append(figures[target.name][name] - figures["direct"][name])
        say("added: " + ", ".join(f"{name} {found['gateway', name][-1]:.2f}" for name in names))
    median = {key: statistics.median(values) for key, values in found.items()}
    return {name: Added(median["gateway", name], median["burner", name]) for name in names}


def _cpu_s(on: Stage, load: Load) -> float:
    """Of the gateway, by request or, for streams, by chunk."""
    on.generator.prepare(on.gateway, load)
    before = cpu_s(on.gateway.pids[0])
    on.generator.go(on.gateway, load)
    return (cpu_s(on.gateway.pids[0]) - before) / (load.requests * (load.chunks or 1))


def _go(on: Stage, load: Load, target: Target) -> dict[str, float]:
    on.generator.prepare(target, load)
    return on.generator.go(target, load)


def _judged(name: str, added: Added, *, limit: float) -> bool:
    beside = f"  ({added.by_burner:.2f} by a server that only uses as much CPU)"
    return judge(f"added {name}", added.by_gateway, limit=limit, unit="ms", is_good=operator.le, beside=beside)


if __name__ == "__main__":
    main()
