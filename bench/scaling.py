"""`python -m bench.scaling`: what a second worker brings, and what memory is left after many requests."""

import operator
import sys
from dataclasses import replace

import click

from bench.cpu import cpu_s
from bench.rounds import WHOLE
from bench.stage import Stage, check_records, judge, rss_bytes, say, stage

WARM = 10_000
STEP = 20_000
LIMIT_WORKERS = 1.8
LIMIT_MEMORY = 1.05


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--requests", default=200_000, show_default=True, type=click.IntRange(20_000), help="For the memory.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, requests: int, check: bool) -> None:
    """Print two ratios.

    Where load generator and upstream run on the cores of the gateway, two workers cannot serve twice as much: so beside
    what was served there is what two workers can serve by the CPU that a request costs each of them."""
    with stage(workers=1) as on:
        served, cpu_us = _served(on)
        memory = _memory(on, requests)
    with stage(workers=2) as on:
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
    _go(on, WARM)
    before = _cpu_s(on)
    figures = _go(on, WARM)
    return figures["requests_per_s"], (_cpu_s(on) - before) * 1e6 / WARM


def _memory(on: Stage, requests: int) -> float:
    """How many times the memory after the first requests that of a worker is at the end; all must be recorded."""
    pid = on.gateway.pids[0]
    early = rss_bytes(pid)
    for done in range(2 * WARM, requests, STEP):
        _go(on, min(STEP, requests - done))
        say(f"{done + STEP} requests: {rss_bytes(pid) / 1024:.0f} KiB, {rss_bytes(pid) / early:.3f} times")
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
