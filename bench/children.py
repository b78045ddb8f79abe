"""Starting and ending the benchmark's own processes: by process id, and all of them when it ends, however it ends."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from crun.supervisor.program import Program, log_tail, spawn, stop

POLL_S = 0.05


class BenchFailed(Exception):
    """Something did not start, or answered wrongly. The message says what."""


@contextmanager
def running(program: Program) -> Iterator[subprocess.Popen[bytes]]:
    """A child for the length of the block. The kernel ends it when this process is killed."""
    process = spawn(program)
    try:
        yield process
    finally:
        stop(process, program)


def wait_until(done: Callable[[], bool], program: Program, *, process: subprocess.Popen[bytes], limit_s: float) -> None:
    """Wait for a child to be ready. Raises BenchFailed when it ends first or takes too long."""
    deadline = time.monotonic() + limit_s
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "ended" if process.poll() is not None else f"is not ready after {limit_s:.0f} s"
            raise BenchFailed(f"{program.name} {state}. Last lines of its log:\n{log_tail(program.log)}")
        time.sleep(POLL_S)


def accepts(port: int) -> bool:
    """Whether something listens on this port here."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def accepts_requests(port: int) -> bool:
    """Whether a gateway is ready on this port here."""
    connection = HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def upstream(folder: Path, *, port: int, pace_ms: float) -> Iterator[None]:
    """The upstream of the benchmark, listening."""
    with _answering("upstream", folder, port=port, options={"--pace-ms": pace_ms}):
        yield


@contextmanager
def spinning(folder: Path, *, port: int, pace_ms: float, request_us: float, chunk_us: float) -> Iterator[None]:
    """A server that only uses CPU before it answers, listening."""
    options = {"--pace-ms": pace_ms, "--request-us": request_us, "--chunk-us": chunk_us}
    with _answering("spinning", folder, port=port, options=options):
        yield


@contextmanager
def _answering(name: str, folder: Path, *, port: int, options: Mapping[str, float]) -> Iterator[None]:
    given = [word for option, value in options.items() for word in (option, str(value))]
    argv = (sys.executable, "-m", f"bench.{name}", "--port", str(port), *given)
    program = Program(name=name, argv=argv, log=folder / f"{name}.log")
    with running(program) as process:
        wait_until(lambda: accepts(port), program, process=process, limit_s=15.0)
        yield


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A short path (unix sockets need that) that the servers' own users can enter."""
    with tempfile.TemporaryDirectory(prefix="crun-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
