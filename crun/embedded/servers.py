"""Both embedded servers as one thing: what tests and short-lived tools use. `crun up` supervises them itself."""

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from crun.embedded.places import release_sockets
from crun.embedded.postgres import prepare_postgres, wait_for_postgres
from crun.embedded.valkey import prepare_valkey, wait_for_valkey
from crun.home import Home
from crun.supervisor.lock import hold_lock
from crun.supervisor.program import Program, spawn, stop


@dataclass
class Server:
    """One embedded server that can be stopped, killed and started again, so that tests can take it away."""

    program: Program
    _wait: Callable[..., None]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.program.name} is not running")
        return self._process.pid

    def start(self, *, wait: bool = True) -> None:
        """Start, and with `wait` return once it answers. Raises EmbeddedServerError."""
        self._process = spawn(self.program)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return once the server answers. Raises EmbeddedServerError when it ends instead."""
        process = self._process
        self._wait(is_alive=lambda: process is not None and process.poll() is None)

    def stop(self) -> None:
        """Clean shutdown: clients are cut off, data is kept. Nothing happens when it is not running."""
        if self._process is not None:
            stop(self._process, self.program)
            self._process = None

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


@dataclass(frozen=True)
class EmbeddedServers:
    """The running pair. URLs come from `home.database_settings()` and `home.redis_url()`."""

    home: Home
    postgres: Server
    valkey: Server


@contextmanager
def embedded_servers(home: Home, *, durable: bool = True) -> Iterator[EmbeddedServers]:
    """Run PostgreSQL (with the database `crun`) and Valkey in `home` while the block runs; both answer at its start.

    `durable=False` trades safety for speed, and removes data kept outside the home at the end.
    Call it from the main thread. Raises EmbeddedServerError, and AlreadyRunning when `home` is in use.
    """
    with hold_lock(home):
        postgres = Server(prepare_postgres(home, durable=durable), partial(wait_for_postgres, home))
        valkey = Server(prepare_valkey(home, durable=durable), partial(wait_for_valkey, home))
        try:
            postgres.start(wait=False)
            valkey.start(wait=False)
            valkey.wait()
            postgres.wait()
            yield EmbeddedServers(home, postgres, valkey)
        finally:
            valkey.stop()
            postgres.stop()
            release_sockets(home)
            if not durable and home.postgres.is_symlink():
                shutil.rmtree(home.postgres.readlink().parent, ignore_errors=True)
                home.postgres.unlink()
