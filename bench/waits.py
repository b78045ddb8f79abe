"""`python -m bench.waits`: what the gateway adds to the first byte at half load, and to each chunk at 60 % load.

The same load goes straight to the upstream and through the gateway, in turn; the difference is what is added.
"""

import operator
import statistics
import sys
from collections import defaultdict
from dataclasses import replace

import click

from bench.cpu import cpu_s
from bench.driver import Load
from bench.rounds import MEDIUM, SPACING, WHOLE
from bench.stage import Stage, judge, say, stage

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
    """Print the milliseconds that are added: medians of the rounds. As it comes it takes about 3 minutes."""
    one_s = STREAMS.chunks * pace_ms / 1000
    about_s = 2 * STARTING_S + one_s * 4 + 2 * rounds * (requests / 1000 + seconds + 2 * one_s)
    say(f"{rounds} rounds of two loads, straight and through the gateway: about {about_s / 60:.0f} minutes")
    with stage(concurrency=32, pace_ms=pace_ms, sheds=False) as on:
        say("how many requests a second can be had")
        capacity = _go(on, replace(WHOLE, requests=requests), "gateway")["requests_per_s"]
        first = _added(on, replace(WHOLE, requests=requests, per_second=capacity * HALF), rounds, ("p50_ms", "p99_ms"))
        say(f"half load is {capacity * HALF:.0f} requests a second; what does a chunk cost?")
        chunk_s = _chunk_cpu_s(on)
    connections = min(MOST_CONNECTIONS, max(8, int(SIXTY / chunk_s * pace_ms / 1000)))
    with stage(concurrency=connections, pace_ms=pace_ms, sheds=False) as on:
        say(f"a chunk costs {chunk_s * 1e6:.1f} us, so {connections} streams are {SIXTY:.0%} load")
        names = ("delay_p50_ms", "delay_p99_ms")
        # Evenly spaced, so that there are as many all the time after the first ones.
        per_second = connections / (one_s * SPACING)
        streams = replace(STREAMS, requests=int(per_second * seconds) + connections, per_second=per_second)
        chunks = _added(on, streams, rounds, names)
    at_most = operator.le
    held = [
        judge("added to the first byte, p50", first["p50_ms"], limit=1.0, unit="ms", is_good=at_most),
        judge("added to the first byte, p99", first["p99_ms"], limit=5.0, unit="ms", is_good=at_most),
        judge("added to a chunk, p50", chunks["delay_p50_ms"], limit=2.0, unit="ms", is_good=at_most),
        judge("added to a chunk, p99", chunks["delay_p99_ms"], limit=2.0, unit="ms", is_good=at_most),
    ]
    sys.exit(1 if check and not all(held) else 0)


def _added(on: Stage, load: Load, rounds: int, names: tuple[str, ...]) -> dict[str, float]:
    """Figure -> the median over the rounds of gateway less direct."""
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        say(f"{load.name}, round {number + 1} of {rounds}")
        order = ("gateway", "direct") if number % 2 else ("direct", "gateway")
        figures = {target: _go(on, load, target) for target in order}
        for name in names:
            found[name].append(figures["gateway"][name] - figures["direct"][name])
        say("added: " + ", ".join(f"{name} {found[name][-1]:.2f}" for name in names))
    return {name: statistics.median(values) for name, values in found.items()}


def _chunk_cpu_s(on: Stage) -> float:
    load = replace(STREAMS, requests=2 * on.generator.connections)
    on.generator.prepare(on.gateway, load)
    before = cpu_s(on.gateway.pids[0])
    on.generator.go(on.gateway, load)
    return (cpu_s(on.gateway.pids[0]) - before) / (load.requests * load.chunks)


def _go(on: Stage, load: Load, name: str) -> dict[str, float]:
    target = on.gateway if name == "gateway" else on.direct
    on.generator.prepare(target, load)
    return on.generator.go(target, load)


if __name__ == "__main__":
    main()
