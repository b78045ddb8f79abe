"""`python -m bench`: measure, print the table, write the JSON document."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench.children import BenchFailed, scratch_folder, upstream
from bench.driver import LoadGenerator, Target, load_generator
from bench.installation import Installation, Recorded, installation
from bench.machine import describe_machine
from bench.proxy import Nginx, NginxPorts, find_nginx, nginx
from bench.report import Outcome, render, write_json
from bench.rounds import BesideWatch, measure
from crun.home import BASE_DIR
from crun.supervisor.listening import free_port

DEFAULT_OUT = BASE_DIR / "var" / "bench" / "latest.json"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Each takes about 30 seconds.")
@click.option("--concurrency", default=32, show_default=True, type=click.IntRange(1, 512), help="Connections.")
@click.option("--pace-ms", default=5.0, show_default=True, help="Time between two chunks of a stream.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="ASGI processes.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed or cannot be checked.")
def main(*, rounds: int, concurrency: int, pace_ms: float, workers: int, check: bool) -> None:
    """Measure what the gateway costs, next to nginx and a direct connection.

    CRUN_BENCH_OUT names the JSON document (var/bench/latest.json)."""
    options = {"rounds": rounds, "concurrency": concurrency, "pace_ms": pace_ms, "workers": workers}
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(128 + signal.SIGTERM))
    try:
        outcome = run(options)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error
    out = Path(os.environ.get("CRUN_BENCH_OUT") or DEFAULT_OUT)
    write_json(outcome, out)
    click.echo(render(outcome))
    click.echo(f"written to {out}")
    sys.exit(_status(outcome, check=check))


def run(options: dict[str, Any]) -> Outcome:
    """A whole run; nothing that it started is left. Raises BenchFailed."""
    started, machine = time.monotonic(), describe_machine()
    with scratch_folder() as folder, ExitStack() as stack:
        upstream_port = free_port(0)
        stack.enter_context(upstream(folder, port=upstream_port, pace_ms=options["pace_ms"]))
        proxy, ports = None, NginxPorts(plain=free_port(0), tuned=free_port(0))
        if program := find_nginx():
            proxy = stack.enter_context(nginx(program, folder, ports=ports, upstream_port=upstream_port))
        say("starting a CRUN of its own")
        crun = stack.enter_context(installation(folder, upstream_port=upstream_port, workers=options["workers"]))
        generator = stack.enter_context(load_generator(options["concurrency"]))
        watch = BesideWatch(crun)
        samples = measure(
            generator,
            _targets(crun, proxy, ports, upstream_port),
            rounds=options["rounds"],
            pace_ms=options["pace_ms"],
            say=say,
        )
        sent = _sent(generator)
        recorded = crun.recorded(expected=sent)
        return Outcome(
            machine=machine,
            nginx_version=proxy.version if proxy else None,
            options=options,
            samples=samples,
            beside=watch.stop(),
            sent=sent,
            recorded=recorded,
            took_s=time.monotonic() - started,
        )


def say(text: str) -> None:
    """Progress, beside the table."""
    click.echo(text, err=True)


def _targets(crun: Installation, proxy: Nginx | None, ports: NginxPorts, upstream_port: int) -> list[Target]:
    found = [Target("direct", upstream_port, pids=(), key=crun.key)]
    if proxy is not None:
        found.append(Target("nginx", ports.plain, pids=(proxy.worker_pid,), key=crun.key))
        found.append(Target("nginx tuned", ports.tuned, pids=(proxy.worker_pid,), key=crun.key))
    return [*found, Target("gateway", crun.port, pids=tuple(crun.gateway_pids()), key=crun.key)]


def _sent(generator: LoadGenerator) -> Recorded:
    """What the gateway must have recorded: every request, with the tokens that the upstream told."""
    return Recorded(generator.sent["gateway"], generator.output_tokens["gateway"])


def _status(outcome: Outcome, *, check: bool) -> int:
    """0 fine; 1 a record is missing or, when asked, a limit is missed; 2 a limit cannot be checked."""
    if outcome.sent != outcome.recorded:
        return 1
    if check and outcome.nginx_version is None:
        return 2
    return int(check and any(one.is_missed for one in outcome.comparisons))


if __name__ == "__main__":
    main()
