"""`python -m bench.fairness`: what a noisy customer does to the waits of a quiet one, with the doorway and without."""

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection
from statistics import median

import click

from bench.children import BenchFailed, scratch_folder, upstream
from bench.cpu import cpu_s
from bench.driver import BODY, Load, LoadGenerator, Target, load_generator
from bench.installation import Installation, crun, installation
from bench.load import percentile
from crun.supervisor.listening import free_port

LIMIT_MS = 10.0
"""So much may the noisy one add to the quiet one's p99."""
QUIET_PER_S = 20.0
PATH = "/api/v1/chat/completions"


@dataclass
class Waits:
    """How long the quiet one's requests took, in ms: by the clock on the wall, and by that of the gateway's CPU.

    Where other programs want the processor too, the second tells what the gateway did before it answered, and the first
    what they did."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def line(self, name: str) -> str:
        """A row of the table."""
        figures = (percentile(values, percent) for values in (self.wall_ms, self.cpu_ms) for percent in (50, 99))
        return f"  {name:<26}" + "".join(f"{figure:10.1f}" for figure in figures) + f"{len(self.wall_ms):10}"


class Quiet:
    """A customer who asks twenty times a second, over one connection."""

    def __init__(self, port: int, key: str, pid: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._body = json.dumps(BODY)
        self._pid = pid
        self.passes = {False: Waits(), True: Waits()}
        """What `GET /healthz` took, alone and beside the noisy one: one pass of the event loop."""

    def ask_until(self, is_over: Callable[[], bool], waits: Waits, *, is_beside: bool = False) -> None:
        """Ask, and note how long it took, until it is over. Raises BenchFailed for another answer than 200."""
        due = time.perf_counter()
        while not is_over():
            time.sleep(max(0.0, due - time.perf_counter()))
            due = max(due, time.perf_counter() - 1.0) + 1 / QUIET_PER_S
            self._ask("POST", PATH, self._body, waits)
            self._ask("GET", "/healthz", None, self.passes[is_beside])

    def _ask(self, method: str, path: str, body: str | None, waits: Waits) -> None:
        wall, cpu = time.perf_counter(), cpu_s(self._pid)
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise BenchFailed(f"the quiet one got {answer.status}: {said[:300]!r}")
        waits.wall_ms.append(1000 * (time.perf_counter() - wall))
        waits.cpu_ms.append(1000 * (cpu_s(self._pid) - cpu))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Alone and beside, in turn.")
@click.option(
    "--requests", default=4_000, show_default=True, type=click.IntRange(100), help="Of the noisy one, a round."
)
@click.option("--connections", default=64, show_default=True, type=click.IntRange(1, 512), help="Of the noisy one.")
@click.option("--starts", default="2,0", show_default=True, help="CRUN_STARTS_PER_TURN of each CRUN; 0: no doorway.")
@click.option("--check", is_flag=True, help=f"Fail when the first adds more than {LIMIT_MS:.0f} ms of CPU to the p99.")
def main(*, rounds: int, requests: int, connections: int, starts: str, check: bool) -> None:
    """A customer with 20 requests a second, alone and beside one who keeps 64 connections busy. One ASGI worker."""
    added = []
    try:
        for value in starts.split(","):
            added.append(_run(int(value), rounds=rounds, requests=requests, connections=connections))
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error
    sys.exit(int(check and added[0] > LIMIT_MS))


def _run(starts: int, *, rounds: int, requests: int, connections: int) -> float:
    """What the noisy one adds to the p99, in milliseconds of the gateway's CPU."""
    alone, beside, rates, costs = Waits(), Waits(), [], []
    with scratch_folder() as folder, ExitStack() as stack:
        port = free_port(0)
        stack.enter_context(upstream(folder, port=port, pace_ms=5.0))
        more = {"CRUN_STARTS_PER_TURN": str(starts)}
        gateway = stack.enter_context(installation(folder, upstream_port=port, more_environment=more))
        (pid,) = gateway.gateway_pids()
        quiet = Quiet(gateway.port, _second_customer(gateway), pid)
        noisy = stack.enter_context(load_generator(connections))
        for _ in range(rounds):
            end = time.monotonic() + 5
            quiet.ask_until(lambda: time.monotonic() > end, alone)  # noqa: B023 - called before `end` changes
            before = cpu_s(pid)
            rates.append(
                _beside_noise(noisy, Target("gateway", gateway.port, (), gateway.key), requests, quiet, beside)
            )
            costs.append(1e6 * (cpu_s(pid) - before) / requests)
    click.echo(f"CRUN_STARTS_PER_TURN={starts}: {QUIET_PER_S:.0f} requests a second, beside {connections} connections")
    click.echo(f"  {'':<26}  p50 wall  p99 wall   p50 CPU   p99 CPU  requests   (ms)")
    click.echo(alone.line("alone"))
    click.echo(beside.line("beside the noisy one"))
    click.echo(quiet.passes[False].line("one pass, alone"))
    click.echo(quiet.passes[True].line("one pass, beside it"))
    click.echo(f"  the noisy one: {median(rates):.0f} requests a second, {median(costs):.0f} us of CPU each")
    added = percentile(beside.cpu_ms, 99) - percentile(alone.cpu_ms, 99)
    wall = percentile(beside.wall_ms, 99) - percentile(alone.wall_ms, 99)
    click.echo(
        f"  added to the p99: {added:.1f} ms of the gateway's CPU, {wall:.1f} ms by the wall; limit {LIMIT_MS:.0f}"
    )
    return added


def _beside_noise(generator: LoadGenerator, target: Target, requests: int, quiet: Quiet, waits: Waits) -> float:
    """The quiet one asks as long as the noisy one does; how many requests a second that one got answered."""
    load, figures = Load("noisy", requests=requests), {}
    generator.prepare(target, load)
    asking = threading.Thread(target=lambda: figures.update(generator.go(target, load)))
    asking.start()
    try:
        quiet.ask_until(lambda: not asking.is_alive(), waits, is_beside=True)
    finally:
        asking.join()
    return figures["requests_per_s"]


def _second_customer(gateway: Installation) -> str:
    """An organization of its own: the secret of its key."""
    crun(gateway.environment, "org", "create", "quiet")
    crun(gateway.environment, "credit", "grant", "--organization", "quiet", "--amount-usd", "1000", "--reason", "bench")
    return crun(gateway.environment, "key", "create", "--organization", "quiet", "--name", "quiet").strip()


if __name__ == "__main__":
    main()
