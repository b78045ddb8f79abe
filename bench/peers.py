"""`python -m bench.peers`: CPU of the gateway beside other gateways, in one run, each in front of the same upstream.

They are installed by whoever measures, outside of this repository: bench/README.md says how.
"""

import os
import shutil
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import click
import yaml

from bench.children import BenchFailed, accepts, running, scratch_folder, upstream, wait_until
from bench.cpu import tree_cpu_s
from bench.driver import Load, LoadGenerator, Target, load_generator
from bench.installation import MODEL, installation
from bench.proxy import NginxPorts, find_nginx, nginx
from crun.supervisor.listening import free_port
from crun.supervisor.program import Program, StopStep

WHOLE = Load("request", requests=600)
STREAM = Load("chunk", requests=64, chunks=100, per_second=45.0)
WARM_UP = 100
START_LIMIT_S = 120.0
STOP = (StopStep(signal.SIGTERM, 10.0),)
_FOR_PORTKEY = ("x-portkey-provider", "openai")
_QUIET_LITELLM = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
WITHOUT_STREAMS = ("Portkey",)
"""As npm installs it, version 1.15.2 answers streams with 500 (`TypeError: immutable`) on Node.js 20."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--litellm", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its `litellm` program.")
@click.option("--portkey", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its start-server.js.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--concurrency", default=32, show_default=True, type=click.IntRange(1, 512), help="Connections.")
@click.option("--pace-ms", default=5.0, show_default=True, help="Time between two chunks of a stream.")
def main(*, litellm: Path | None, portkey: Path | None, rounds: int, concurrency: int, pace_ms: float) -> None:
    """Print the CPU time of each by request and by chunk, and how many times ours that is."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        with scratch_folder() as folder, ExitStack() as stack:
            port = free_port(0)
            stack.enter_context(upstream(folder, port=port, pace_ms=pace_ms))
            crun = stack.enter_context(installation(folder, upstream_port=port))
            targets = [Target("gateway", crun.port, pids=tuple(crun.gateway_pids()), key=crun.key)]
            if program := find_nginx():
                ports = NginxPorts(plain=free_port(0), tuned=free_port(0))
                proxy = stack.enter_context(nginx(program, folder, ports=ports, upstream_port=port))
                targets.append(Target("nginx", ports.plain, pids=(proxy.worker_pid,), key=crun.key))
            if litellm is not None:
                targets.append(stack.enter_context(_litellm(litellm, folder, upstream_port=port, key=crun.key)))
            if portkey is not None:
                targets.append(stack.enter_context(_portkey(portkey, folder, upstream_port=port, key=crun.key)))
            generator = stack.enter_context(load_generator(concurrency))
            _print(_measure(generator, targets, rounds))
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error


def _measure(generator: LoadGenerator, targets: list[Target], rounds: int) -> dict[tuple[str, str], list[float]]:
    """(load, target) -> us of CPU by request or chunk, one a round. Each round begins with another target."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for target in targets:
        _once(generator, target, replace(WHOLE, requests=WARM_UP))
    for number in range(rounds):
        click.echo(f"round {number + 1} of {rounds}", err=True)
        first = number % len(targets)
        for load in (WHOLE, STREAM):
            for target in [*targets[first:], *targets[:first]]:
                if not load.chunks or target.name not in WITHOUT_STREAMS:
                    found[load.name, target.name].append(_once(generator, target, load))
    return found


def _once(generator: LoadGenerator, target: Target, load: Load) -> float:
    generator.prepare(target, load)
    before = sum(map(tree_cpu_s, target.pids))
    generator.go(target, load)
    return (sum(map(tree_cpu_s, target.pids)) - before) * 1e6 / (load.requests * max(load.chunks, 1))


def _print(found: dict[tuple[str, str], list[float]]) -> None:
    click.echo(f"{'us of CPU: median (least..most)':<42}{'times ours':>12}")
    for (load, target), values in found.items():
        ours = statistics.median(found[load, "gateway"])
        middle = statistics.median(values)
        told = f"{middle:.1f} ({min(values):.1f}..{max(values):.1f})"
        click.echo(f"{load:<10}{target:<10}{told:>22}{middle / ours:>12.2f}")


@contextmanager
def _litellm(program_path: Path, folder: Path, *, upstream_port: int, key: str) -> Iterator[Target]:
    """LiteLLM's proxy: one worker, no database, and the settings that its documentation recommends for production."""
    model = {"model": "openai/gpt-4o-mini", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "sk-bench"}
    document = {
        "model_list": [{"model_name": MODEL, "litellm_params": model}],
        "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600, "num_retries": 0},
        "general_settings": {"master_key": key, "disable_spend_logs": True},
    }
    configuration = folder / "litellm.yaml"
    configuration.write_text(yaml.safe_dump(document))
    port = free_port(0)
    program = Program(
        name="LiteLLM",
        argv=(str(program_path), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port),
              "--num_workers", "1", "--telemetry", "False"),
        log=folder / "litellm.log",
        env={**os.environ, **_QUIET_LITELLM},
        stop_steps=STOP,
    )  # fmt: skip
    with _started(program, port) as pids:
        yield Target("LiteLLM", port, pids=pids, key=key, path="/v1/chat/completions")


@contextmanager
def _portkey(script: Path, folder: Path, *, upstream_port: int, key: str) -> Iterator[Target]:
    """Portkey's gateway, which is told the upstream in headers."""
    node = shutil.which("node")
    if node is None:
        raise BenchFailed("Portkey's gateway needs Node.js")
    port = free_port(0)
    program = Program(
        name="Portkey",
        argv=(node, str(script), f"--port={port}", "--headless"),
        log=folder / "portkey.log",
        env={**os.environ, "NODE_ENV": "production"},
        stop_steps=STOP,
    )
    where = ("x-portkey-custom-host", f"http://127.0.0.1:{upstream_port}/v1")
    with _started(program, port) as pids:
        yield Target("Portkey", port, pids=pids, key=key, path="/v1/chat/completions", headers=(_FOR_PORTKEY, where))


@contextmanager
def _started(program: Program, port: int) -> Iterator[tuple[int, ...]]:
    """The processes of a peer that listens: the topmost, whose CPU time is counted with all below it."""
    with running(program) as process:
        wait_until(lambda: accepts(port), program, process=process, limit_s=START_LIMIT_S)
        yield (process.pid,)


if __name__ == "__main__":
    main()
