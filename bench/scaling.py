"""`python -m bench.scaling`: what a second worker brings, and what memory is left after many requests."""

import operator
import sys
import time
from dataclasses import replace

import click

from bench.cpu import cpu_s
from bench.rounds import WHOLE
from bench.stage import Stage, check_records, judge, rss_bytes, say, stage

WARM = 10_000
STEP = 10_000
USUAL_PER_S = 2_000
"""What one worker serves where the load generator has a core of its own: for telling how long it will take."""
STARTING_S = 30
"""Of an installation, and ending it."""
EXPORTED_PER_S = 10_000
LIMIT_WORKERS = 1.8
LIMIT_MEMORY = 1.05


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--requests", default=100_000, show_default=True, type=click.IntRange(20_000), help="For the memory.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, requests: int, check: bool) -> None:
    """Print two ratios. 100 000 requests take about 3 minutes, 1 000 000 about 15.

    Where load generator and upstream run on the cores of the gateway, two workers cannot serve twice as much: so beside
    what was served there is what two workers can serve by the CPU that a request costs each of them."""
    about_s = 2 * STARTING_S + (requests + 2 * WARM) / USUAL_PER_S + requests / EXPORTED_PER_S
    say(f"{requests} requests to one worker, {2 * WARM} to two: about {about_s / 60:.0f} minutes on a quiet machine")
    with stage(workers=1, sheds=False) as on:
        _go(on, WARM)
        early = rss_bytes(on.gateway.pids[0])
        served, cpu_us = _served(on)
        memory = _memory(on, requests, early)
    with stage(workers=2, sheds=False) as on:
        say("two workers")
        _go(on, WARM)
        served_by_two, cpu_us_of_two = _served(on)
    click.echo(
        f"one worker: {served:.0f} requests a second, {cpu_us:.1f} us; two: {served_by_two:.0f}, {cpu_us_of_two:.1f}"
    )
    click.echo(f"{'served by two workers / by one, on this machine':<58}{served_by_two / served:>12.2f}")
    held = [
        judge("the same, by CPU", 2 * cpu_us / cpu_us_of_two, limit=LIMIT_WORKERS, unit="", is_good=operator.ge),
        judge(f"memory after {requests} / {WARM} requests", memory, limit=LIMIT_MEMORY, unit="", is_good=operator.le),
    ]
    sys.exit(1 if check and not all(held) else 0)


def _served(on: Stage) -> tuple[float, float]:
    """Requests a second, and CPU of all workers by request in us."""
    before = _cpu_s(on)
    figures = _go(on, WARM)
    cpu_us = (_cpu_s(on) - before) * 1e6 / WARM
    say(f"{figures['requests_per_s']:.0f} requests a second, {cpu_us:.1f} us of CPU each")
    return figures["requests_per_s"], cpu_us


def _memory(on: Stage, requests: int, early: int) -> float:
    """How many times the memory after the first requests that of a worker is at the end; all must be recorded."""
    pid, started = on.gateway.pids[0], time.monotonic()
    for done in range(2 * WARM, requests, STEP):
        _go(on, min(STEP, requests - done))
        now_done = min(done + STEP, requests)
        left_s = (requests - now_done) * (time.monotonic() - started) / (now_done - 2 * WARM)
        say(
            f"{now_done} requests: {rss_bytes(pid) / 1024:.0f} KiB, {rss_bytes(pid) / early:.3f} times;"
            f" {left_s:.0f} s to go"
        )
    say("are all recorded?")
    check_records(on)
    return rss_bytes(pid) / early


def _go(on: Stage, requests: int) -> dict[str, float]:
    load = replace(WHOLE, requests=requests)
    on.generator.prepare(on.gateway, load)
    return on.generator.go(on.gateway, load)


def _cpu_s(on: Stage) -> float:
    return sum(cpu_s(pid) for pid in on.gateway.pids)


if __name__ == "__main__":
    main()
