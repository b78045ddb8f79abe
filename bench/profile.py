"""`python -m bench.profile`: which functions of the gateway cost most CPU, for answers in one piece and for streams."""

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from bench.children import BenchFailed, accepts_requests, running, scratch_folder, upstream, wait_until
from bench.cpu import cpu_s
from bench.driver import Load, LoadGenerator, Target, load_generator
from bench.installation import Installation, installation
from bench.rounds import MEDIUM, WHOLE
from crun.home import BASE_DIR
from crun.supervisor.listening import free_port, listen, port_of
from crun.supervisor.program import Program

LOADS = (replace(WHOLE, requests=12_000), replace(MEDIUM, requests=960, per_second=58.0))
PACE_MS = 5.0
WRITING_LIMIT_S = 15.0
FOREIGN = ("site-packages/", "lib/python")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--top", default=40, show_default=True, type=click.IntRange(1), help="Functions to show.")
@click.option("--concurrency", default=32, show_default=True, type=click.IntRange(1, 512), help="Connections.")
def main(top: int, concurrency: int) -> None:
    """Print the functions with the most own time, per request and per chunk."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        with scratch_folder() as folder:
            run(folder, top=top, concurrency=concurrency)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error


def run(folder: Path, *, top: int, concurrency: int) -> None:
    """Profile both loads on an ASGI worker of its own, which belongs to a throw-away installation."""
    out, upstream_port = folder / "profile", free_port(0)
    with (
        upstream(folder, port=upstream_port, pace_ms=PACE_MS),
        installation(folder, upstream_port=upstream_port) as crun,
        profiled_worker(folder, crun, out=out) as target,
        load_generator(concurrency) as generator,
    ):
        for load in LOADS:
            unit_us = record(generator, target, load=load, out=out)
            click.echo(f"\n{load.name}: {unit_us:.1f} us of CPU by {'chunk' if load.chunks else 'request'}")
            for line in ranking(out, unit_us, top=top):
                click.echo(line)


def record(generator: LoadGenerator, target: Target, *, load: Load, out: Path) -> float:
    """Once without the profiler for the true cost in us by request or chunk, once with it. Raises BenchFailed."""
    pid = target.pids[0]
    generator.prepare(target, load)
    before = cpu_s(pid)
    generator.go(target, load)
    used_us = (cpu_s(pid) - before) * 1e6
    generator.prepare(target, load)
    out.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR1)
    generator.go(target, load)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + WRITING_LIMIT_S
    while not out.exists():
        if time.monotonic() > deadline:
            raise BenchFailed("the profiled worker did not write its profile")
        time.sleep(0.05)
    return used_us / (load.requests * max(load.chunks, 1))


def ranking(out: Path, unit_us: float, *, top: int) -> Iterator[str]:
    """The functions by own time, as lines. `unit_us` is what a request or a chunk costs in all."""
    found = json.loads(out.read_text())
    samples = sum(found["own"].values())
    yield f"{samples} samples; a function's own time has that of what it calls in C"
    for title, counts in (("own", found["own"]), ("with all it calls", found["whole"])):
        yield f"\n{'us':>8}{'share':>8}  {title}"
        for place, count in Counter(counts).most_common(top):
            yield f"{unit_us * count / samples:>8.2f}{count / samples:>8.1%}  {_short(place)}"


@contextmanager
def profiled_worker(folder: Path, crun: Installation, *, out: Path) -> Iterator[Target]:
    """An ASGI worker beside those of the installation, on a socket of its own."""
    with listen("127.0.0.1", 0) as listener:
        program = Program(
            name="profiled worker",
            argv=(sys.executable, "-m", "bench.profiled", "--out", str(out), "--", *_serve_arguments(listener)),
            log=folder / "profiled.log",
            env=crun.environment,
            inherited_fds=(listener.fileno(),),
        )
        port = port_of(listener)
        with running(program) as process:
            wait_until(lambda: accepts_requests(port), program, process=process, limit_s=30.0)
            yield Target("gateway", port, pids=(process.pid,), key=crun.key)


def _serve_arguments(listener: socket.socket) -> tuple[str, ...]:
    return "--fd", str(listener.fileno())


def _short(place: str) -> str:
    for mark in FOREIGN:
        if mark in place:
            return place.rpartition(mark)[2]
    return place.removeprefix(f"{BASE_DIR}/")


if __name__ == "__main__":
    main()
