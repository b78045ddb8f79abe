"""The command line of the sandbox: options, signals, the line that says it is ready."""

import asyncio
import os
import signal
from pathlib import Path

import click
import uvloop

from crun.sandbox.server import Options, Sandbox


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9101, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--fd", type=click.IntRange(0), help="Serve on this inherited listening socket instead.")
@click.option("--port-file", type=click.Path(path_type=Path), help="Write the port to this file when ready.")
@click.option("--truth", type=click.Path(path_type=Path), help="Log every request and chunk to this file.")
@click.option("--api-key", help="Refuse every other bearer token with 401.")
def sandbox(
    host: str, port: int, *, fd: int | None, port_file: Path | None, truth: Path | None, api_key: str | None
) -> None:
    """Run the sandbox upstream: models that need no vendor, and every fault of one."""
    options = Options(host, port, fd, truth, api_key)
    try:
        uvloop.run(_serve(options, port_file))
    except OSError as error:
        raise click.ClickException(f"the sandbox cannot run: {error}") from None


async def _serve(options: Options, port_file: Path | None) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when it cannot start or its truth log fails."""
    running = Sandbox(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.must_stop.set)
    async with running:
        if port_file is not None:
            _write_port(port_file, running.port)
        click.echo(f"Sandbox upstream ready at {running.url}")
        await running.must_stop.wait()
    if running.failure is not None:
        raise running.failure


def _write_port(path: Path, port: int) -> None:
    """The file appears with its whole content, so that a reader never sees half a number."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(f"{port}\n")
    draft.replace(path)
