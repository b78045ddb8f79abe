"""One installation as an operator has it: `crun up` in a process and a home of its own, and the `crun` command."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.rows import dict_row

from crun.home import BASE_DIR, Home
from crun.supervisor.program import LEASH

READY = "Ctrl-C stops everything."
START_LIMIT_S = 100.0
STOP_LIMIT_S = 60.0
PIPE_BYTES = 65_536
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME")


@dataclass(frozen=True)
class Start:
    """One start: what it printed, and how long it took."""

    output: str
    took_s: float


class Installation:
    """A home, and the `crun up` that runs it between `start` and `stop`."""

    def __init__(self, home: Path, **settings: str) -> None:
        """`settings` are environment variables beside CRUN_HOME, PORT and SANDBOX_PORT."""
        self.home = Home(home)
        self.environment = {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "CRUN_HOME": str(home),
            "PORT": "0",
            "SANDBOX_PORT": "9100",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.starts: list[Start] = []
        self.url = ""
        self.api_key = ""

    @property
    def api(self) -> str:
        """Base URL of the API, as SDKs take it."""
        return f"{self.url}/api/v1"

    def start(self) -> None:
        """Run `crun up` until it says that it is ready; remember URL and, on a first start, the key."""
        said = self.home.path.with_name("crun-up.txt")
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(int(signal.SIGTERM)), "-"]
        began = time.monotonic()
        with said.open("wb") as output:
            self.process = subprocess.Popen(
                [*leash, sys.executable, "-m", "crun.cli", "up"],
                cwd=BASE_DIR,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        while READY not in (text := said.read_text()):
            assert self.process.poll() is None, f"crun up ended with {self.process.returncode}: {text}"
            assert time.monotonic() - began < START_LIMIT_S, f"not ready after {START_LIMIT_S} s: {text}"
            time.sleep(0.02)
        self.starts.append(Start(text, time.monotonic() - began))
        self.url = self._said(r"Portal +(\S+)/$")
        self.api_key = self._said(r"API key +(ak_\w+)") or self.api_key

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask to stop, wait for the end; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_LIMIT_S)

    def crun(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run the `crun` command against this installation."""
        return subprocess.run(
            [sys.executable, "-m", "crun.cli", *arguments],
            cwd=BASE_DIR,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def new_key(self, name: str) -> tuple[str, str]:
        """A new key of the seeded organization: its secret and its id."""
        made = self.crun("key", "create", "--organization", "demo", "--name", name)
        assert made.returncode == 0, made.stderr
        return made.stdout.strip(), made.stderr.removeprefix("id: ").strip()

    def import_catalog(self, document: str) -> None:
        """`crun catalog import -`, which must succeed."""
        done = self.crun("catalog", "import", "-", stdin=document)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def starting_import(self) -> Iterator[Callable[[str], None]]:
        """A `crun catalog import -` that waits for its document already: what it gets is in force a moment later,
        however long the program takes to start."""
        with subprocess.Popen(
            [sys.executable, "-m", "crun.cli", "catalog", "import", "-"],
            cwd=BASE_DIR,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdin is not None
            process.stdin.write("#\n" * PIPE_BYTES)  # returns when somebody reads: it is more than a pipe holds
            process.stdin.flush()

            def finish(document: str) -> None:
                process.communicate(document, timeout=60)
                assert process.returncode == 0

            yield finish

    def pid(self, name: str) -> int:
        """Process id by the name of the pid file."""
        return int((self.home.run / f"{name}.pid").read_text())

    def workers(self) -> list[int]:
        """Process ids of the ASGI workers."""
        return [self.pid(path.stem) for path in sorted(self.home.run.glob("asgi-*.pid"))]

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection[dict[str, object]]]:
        """A connection of ours to the embedded PostgreSQL; rows are dicts."""
        settings = self.home.database_settings()
        with psycopg.connect(
            host=settings["HOST"],
            user=settings["USER"],
            dbname=settings["NAME"],
            autocommit=True,
            row_factory=dict_row,
        ) as connection:
            yield connection

    def logs(self) -> Mapping[str, str]:
        """All logs by file name."""
        return {path.name: path.read_text(errors="replace") for path in self.home.logs.iterdir()}

    def _said(self, pattern: str) -> str:
        found = re.search(pattern, self.starts[-1].output, re.MULTILINE)
        return found[1] if found else ""


@contextmanager
def new_home() -> Iterator[Path]:
    """A path for a home: short enough for sockets, open to PostgreSQL's own user, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="crun-acceptance-"))
    folder.chmod(0o755)
    try:
        yield folder / "home"
    finally:
        shutil.rmtree(folder)


@contextmanager
def running_installation(**settings: str) -> Iterator[Installation]:
    """A new installation, started, and stopped at the end whatever happened."""
    with new_home() as home:
        made = Installation(home, **settings)
        try:
            made.start()
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.stop()
