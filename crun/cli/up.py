"""`crun up`: everything of one installation in the foreground, supervised. `make run` calls it."""

import asyncio
import os
import socket
import time
from functools import partial
from urllib.parse import urlsplit

import click

from crun.embedded.places import prepare_sockets, release_sockets
from crun.embedded.postgres import prepare_postgres
from crun.embedded.valkey import prepare_valkey
from crun.home import Home, ensure_secrets, load_environment
from crun.supervisor.crew import Crew, StartFailed, StopRequested
from crun.supervisor.keeper import Keeper
from crun.supervisor.listening import PortTaken, free_port, listen, port_of
from crun.supervisor.lock import AlreadyRunning, hold_lock
from crun.supervisor.pidfiles import end_leftovers
from crun.supervisor.probes import database_obstacle, readyz_obstacle, redis_obstacle
from crun.supervisor.program import StartBlocked
from crun.supervisor.programs import (
    asgi_program,
    beat_program,
    prepare_program,
    sandbox_program,
    worker_program,
)
from crun.supervisor.welcome import Prepared, base_url, credentials, say, welcome

READY_LIMIT_S = 60.0
SETTLED_AFTER_S = 3.0


@click.command()
def up() -> None:
    """Start everything: databases, gateway, portal, console, workers. Ctrl-C stops it.

    PORT, HOST, WORKERS, CRUN_HOME, DATABASE_URL, REDIS_URL and the rest come from the environment or from .env.
    """
    home = load_environment()
    os.environ["CRUN_HOME"] = str(home.path)
    host, port = os.environ.get("HOST") or "127.0.0.1", _number("PORT", default=8000, least=0, most=65_535)
    workers = _number("WORKERS", default=1, least=1, most=256)
    try:
        with hold_lock(home):
            end_leftovers(home)
            with listen(host, port) as listener:
                os.environ["HOST"], os.environ["PORT"] = host, str(port_of(listener))
                ensure_secrets(home)
                asyncio.run(run(home, listener, url=base_url(host, port_of(listener)), workers=workers))
    except (AlreadyRunning, PortTaken, StartBlocked, StartFailed) as error:
        raise click.ClickException(str(error)) from error


async def run(home: Home, listener: socket.socket, *, url: str, workers: int) -> None:
    """Start all children, say so, keep them running until asked to stop, stop them.

    Raises StartBlocked and StartFailed, all children stopped again.
    """
    crew = Crew(home, say=say)
    with crew.signals():
        try:
            await start(crew, home, listener, url=url, workers=workers)
            await crew.stop_requested.wait()
        except StopRequested:
            pass
        finally:
            say("Stopping: streams may end first (Ctrl-C again hastens).")
            await crew.stop()
            release_sockets(home)
            say("Stopped.")


async def start(crew: Crew, home: Home, listener: socket.socket, *, url: str, workers: int) -> None:
    """The order of a start. Raises StartBlocked, StartFailed and StopRequested."""
    began = time.monotonic()
    say(f"Starting CRUN in {home.path}")
    await start_servers(crew, home)
    sandbox_port = free_port(_number("SANDBOX_PORT", default=9101, least=1, most=65_535))
    os.environ["SANDBOX_URL"] = f"http://127.0.0.1:{sandbox_port}/v1"
    crew.keep(sandbox_program(home, port=sandbox_port))
    prepared = Prepared.read(await crew.run_once(prepare_program(home)))
    try:
        celery = [crew.keep(worker_program(home)), crew.keep(beat_program(home))]
        asgi = [crew.keep(asgi_program(home, number=n, listener_fd=listener.fileno())) for n in range(workers)]
        at = urlsplit(url)
        probe = partial(readyz_obstacle, at.hostname or "", at.port or 80)
        await crew.until_ready(probe, asgi[0], limit_s=READY_LIMIT_S)
        for keeper in celery:
            await crew.until_ready(partial(settled_obstacle, keeper), keeper, limit_s=READY_LIMIT_S)
    except (StartFailed, StopRequested):
        say("\n".join(credentials(prepared)))  # this start made them, and no other will show them
        raise
    say(welcome(url, prepared, logs=home.logs, took_s=time.monotonic() - began))


async def start_servers(crew: Crew, home: Home) -> None:
    """PostgreSQL and Valkey, embedded unless their URLs are given. Raises as `start`."""
    postgres = valkey = None
    if not os.environ.get("DATABASE_URL"):
        postgres = crew.keep(prepare_postgres(home))
    elif not os.environ.get("REDIS_URL"):
        prepare_sockets(home, None)
    if not os.environ.get("REDIS_URL"):
        valkey = crew.keep(prepare_valkey(home))
    await crew.until_ready(partial(database_obstacle, home), postgres, limit_s=READY_LIMIT_S)
    await crew.until_ready(partial(redis_obstacle, home), valkey, limit_s=READY_LIMIT_S)


async def settled_obstacle(keeper: Keeper) -> str | None:
    """Celery has no door to knock at: what has lived for a while has got through its imports and its connections."""
    return None if keeper.age_s >= SETTLED_AFTER_S else "it has not lived long enough"


def _number(name: str, *, default: int, least: int, most: int) -> int:
    """A whole number from the environment. Raises click.ClickException for anything else."""
    text = os.environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise click.ClickException(f"{name} is {text!r}; it must be a whole number from {least} to {most}.")
    return int(text)
