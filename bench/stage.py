"""What every measurement of its own starts: an upstream, a CRUN in front of it, and the load generator."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from bench.children import BenchFailed, scratch_folder, upstream
from bench.driver import LoadGenerator, Target, load_generator
from bench.installation import Installation, Recorded, installation
from crun.supervisor.listening import free_port


@dataclass(frozen=True)
class Stage:
    """Everything is ready. `direct` is the upstream without anything in between."""

    crun: Installation
    generator: LoadGenerator
    gateway: Target
    direct: Target


@contextmanager
def stage(*, concurrency: int = 32, workers: int = 1, pace_ms: float = 5.0, sheds: bool = True) -> Iterator[Stage]:
    """For the length of the block. What fails in it ends the command with its reason. Without `sheds` nobody is sent
    away, so that a moment in which the machine is busy with something else does not end a measurement of minutes."""
    try:
        with scratch_folder() as folder, ExitStack() as stack:
            port = free_port(0)
            stack.enter_context(upstream(folder, port=port, pace_ms=pace_ms))
            more = {} if sheds else {"CRUN_SHED_LATE_S": ""}
            crun = stack.enter_context(installation(folder, upstream_port=port, workers=workers, more_environment=more))
            generator = stack.enter_context(load_generator(concurrency))
            gateway = Target("gateway", crun.port, pids=tuple(crun.gateway_pids()), key=crun.key)
            yield Stage(crun, generator, gateway, Target("direct", port, pids=(), key=crun.key))
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error


def many_descriptors() -> None:
    """Let this process and its children have as many connections as the machine allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in RAM and its own: without what it shares with files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"no memory of process {pid}")


def check_records(on: Stage) -> None:
    """Raises BenchFailed unless all that was sent to the gateway has a record, with the tokens that were told."""
    expected = Recorded(on.generator.sent[on.gateway.name], on.generator.output_tokens[on.gateway.name])
    found = on.crun.recorded(expected=expected)
    if found != expected:
        raise BenchFailed(f"{expected} was sent, {found} is recorded")


def say(text: str) -> None:
    """Something for whoever waits."""
    click.echo(text, err=True)


def judge(
    name: str, value: float, *, limit: float, unit: str, is_good: Callable[[float, float], bool], beside: str = ""
) -> bool:
    """Print a figure beside its limit, and what else there is to say; whether it holds."""
    holds = is_good(value, limit)
    click.echo(f"{name:<58}{value:>12.2f} {unit:<9}limit {limit:g}{'' if holds else '  MISSED'}{beside}")
    sys.stdout.flush()
    return holds
