"""Process ids of the children, one file a name, for people and for the next start."""

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crun.home import Home
from crun.supervisor.program import sweep_group

MARK = "CRUN_SUPERVISED_HOME"  # in the environment of every child: tells ours from a stranger with the same number
LEFTOVER_LIMIT_S = 3.0


@dataclass(frozen=True)
class PidFiles:
    """The folder `$CRUN_HOME/run`."""

    folder: Path

    def write(self, names: Iterable[str], pid: int) -> None:
        """Name a process; readers see the old content or the new, never half of it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in names:
            scratch = self.folder / f".{name}.pid"
            scratch.write_text(f"{pid}\n")
            scratch.replace(self.folder / f"{name}.pid")

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self.folder / f"{name}.pid").unlink(missing_ok=True)

    def read(self) -> dict[str, int]:
        """All names with their process ids, alive or not."""
        found = {}
        for path in self.folder.glob("*.pid"):
            with suppress(ValueError, FileNotFoundError):
                found[path.stem] = int(path.read_text())
        return found


def end_leftovers(home: Home) -> None:
    """End children of a supervisor that was killed. Call it with the lock of the home held.

    The kernel asked them to stop when their supervisor died; they get some seconds for it, then SIGKILL with all of
    their group. Recognising them takes /proc: elsewhere they have to be ended by hand. PostgreSQL looks after itself
    (`crun.embedded.postgres.clear_way`): it must never be killed that way.
    """
    pid_files = PidFiles(home.run)
    left = {name: pid for name, pid in pid_files.read().items() if name not in ("crun", "postgres")}
    ours = {pid for pid in left.values() if _is_child_of(pid, home)}
    for pid in ours:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + LEFTOVER_LIMIT_S
    while time.monotonic() < deadline and any(_is_child_of(pid, home) for pid in ours):
        time.sleep(0.05)
    for pid in ours:
        sweep_group(pid)
    pid_files.remove(pid_files.read())


def _is_child_of(pid: int, home: Home) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, belongs to somebody else, or this system has no /proc
        return False
    return f"{MARK}={home.path}".encode() in environment.split(b"\0")
