"""A stage for trials with money: real workers and shippers that can die, on stores and a database of their own.

Workers are forked from one process that has loaded everything, so that a crash costs milliseconds and not seconds."""

import importlib
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

from apps.core.limits import Limits
from crun.embedded.valkey import start_valkey, wait_for_valkey
from crun.home import Home
from tests.acceptance.upstream import TruthUpstream

USD = 1_000_000_000
NO_LIMITS = Limits()
PRELOADED = "tests.money.actors"
NEVER = "P16:1000000000"
"""How the processes are armed until they are told where to die."""
TIMEOUTS = {
    "CRUN_UPSTREAM_FIRST_BYTE_TIMEOUT_S": "20",
    "CRUN_UPSTREAM_IDLE_TIMEOUT_S": "20",
    "CRUN_UPSTREAM_TOTAL_TIMEOUT_S": "60",
    "CRUN_DRAIN_TIMEOUT_S": "10",
}
_serial = itertools.count(1)


class Stage:
    """A database, a Valkey, an upstream with its truth log, and a door through which workers are asked."""

    def __init__(self, folder: Path, database: str, truth: TruthUpstream) -> None:
        self.folder = folder
        self.database_name = database
        self.truth = truth
        self.log = folder / "actors.log"
        self.log.touch()
        self.journals = folder / "journal"
        self.valkey_home = Home(folder / "v")
        self.valkey_home.sockets.mkdir(parents=True)
        self.door = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.api = f"http://127.0.0.1:{self.door.getsockname()[1]}/api/v1"
        self._valkey: subprocess.Popen[bytes] | None = None
        self._context = multiprocessing.get_context("forkserver")
        self._processes: list[BaseProcess] = []

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the stage finds in its environment."""
        sockets = Home(Path(os.environ["CRUN_HOME"])).sockets
        return {
            "DJANGO_SETTINGS_MODULE": "crun.settings",
            "DATABASE_URL": f"postgresql://crun@/{self.database_name}?host={sockets}",
            "REDIS_URL": self.valkey_home.redis_url(),
            "CRUN_JOURNAL_DIR": str(self.journals),
            **TIMEOUTS,
        }

    # --- processes ---

    def worker(self, crash: str = "") -> BaseProcess:
        """Start an ASGI worker that dies at `crash` (as in CRUN_CRASH_POINT), or when it is killed."""
        return self._start("serve", self.door, crash, str(self.log))

    def shipper(self, pause_s: float = 0.05) -> BaseProcess:
        """Start a process that ships and posts until it is killed."""
        return self._start("keep_settling", pause_s, str(self.log))

    def settling(self, crash: str = "") -> BaseProcess:
        """Start one run of shipping and posting."""
        return self._start("settle", crash, str(self.log))

    def settle(self) -> None:
        """Ship and post until nothing is left to do."""
        process = self.settling()
        process.join(60)
        assert process.exitcode == 0, f"shipping ended with {process.exitcode}: {self.log.read_text()[-4000:]}"

    def ask(self, function: str, *arguments: Any) -> Any:
        """Run a function of `actors` in a process with Django; what it returns."""
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._start("errand", theirs, str(self.log), _Named(function), arguments)
        theirs.close()
        try:
            return ours.recv()
        except EOFError:
            raise AssertionError(f"{function} failed: {self.log.read_text()[-4000:]}") from None
        finally:
            ours.close()
            process.join(10)

    def kill(self, process: BaseProcess, number: int = signal.SIGKILL) -> None:
        """Kill one of ours and wait for its end."""
        assert process.pid is not None
        if process.is_alive():
            os.kill(process.pid, number)
        process.join(20)
        assert not process.is_alive()

    def _start(self, actor: str, *arguments: Any) -> BaseProcess:
        process = self._context.Process(target=_Named(actor), args=arguments, daemon=True)
        process.start()
        self._processes = [one for one in self._processes if one.is_alive()]
        self._processes.append(process)
        return process

    # --- stores ---

    def start_valkey(self) -> None:
        self._valkey = start_valkey(self.valkey_home, durable=False)
        wait_for_valkey(self.valkey_home)

    def signal_valkey(self, number: int) -> None:
        assert self._valkey is not None
        self._valkey.send_signal(number)
        if number == signal.SIGKILL:
            self._valkey.wait()

    @contextmanager
    def store(self) -> Iterator["redis.Redis"]:
        """A client of the stage's Valkey."""
        client = redis.Redis(unix_socket_path=str(self.valkey_home.valkey_socket), protocol=2)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def database(self, name: str = "") -> Iterator["psycopg.Connection[dict[str, Any]]"]:
        """A connection of the test's own; rows are dicts."""
        home = Home(Path(os.environ["CRUN_HOME"]))
        with psycopg.connect(
            host=str(home.sockets),
            user="crun",
            dbname=name or self.database_name,
            autocommit=True,
            row_factory=dict_row,  # type: ignore[arg-type]  # the annotation of connect() knows tuples only
        ) as connection:
            yield connection

    # --- customers ---

    def found(
        self, credit_nanos: int, *, limits: Limits = NO_LIMITS, owner_limits: dict[str, Any] | None = None
    ) -> tuple[str, str]:
        """A new organization with credit: its id and the secret of its key."""
        return self.ask("found", f"Stage {next(_serial)}", credit_nanos, limits, owner_limits or {})

    def money(self, owner: str) -> dict[str, str]:
        """What Redis knows of an organization's money."""
        with self.store() as client:
            return {name.decode(): value.decode() for name, value in client.hgetall(f"crun:{{{owner}}}:money").items()}

    def end_processes(self) -> None:
        """Kill whatever still runs here: what they were forked from lives as long as any of them."""
        for process in self._processes:
            if process.is_alive():
                process.kill()
                process.join(10)
        self._processes.clear()

    def close(self) -> None:
        """Close the door and stop Valkey."""
        self.door.close()
        if self._valkey is not None:
            self._valkey.kill()
            self._valkey.wait()


class _Named:
    """A function of `actors` by its name: the test's own process never loads that module."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        return getattr(importlib.import_module(PRELOADED), self.name)(*arguments)


@contextmanager
def running_stage(folder: Path, truth: TruthUpstream, catalog: str, template: str = "template1") -> Iterator[Stage]:
    """A stage with its catalog, and nothing of it left behind. `template`: the database to copy, migrated or empty."""
    database = f"money_{os.getpid()}_{next(_serial)}"
    stage = Stage(folder, database, truth)
    with ExitStack() as stack:
        stack.callback(stage.close)
        stage.start_valkey()
        with stage.database("postgres") as server:
            server.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        stack.callback(_drop, stage)
        _start_forking(stage)
        stack.callback(_stop_forking)
        stack.callback(stage.end_processes)
        stage.ask("migrate")
        stage.ask("offer", catalog)
        yield stage


def _drop(stage: Stage) -> None:
    with stage.database("postgres") as server:
        server.execute(f'DROP DATABASE "{stage.database_name}" WITH (FORCE)')


def _start_forking(stage: Stage) -> None:
    """Start the process that all others are forked from, with the environment of the stage."""
    changes = {**stage.environment, "CRUN_CRASH_POINT": NEVER}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOADED, __name__])
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _stop_forking() -> None:
    """The next stage gets another one."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public way
