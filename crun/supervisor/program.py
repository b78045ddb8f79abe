"""One child program: what to run, as whom, where its output goes and how it is asked to stop."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from crun.home import BASE_DIR

LEASH = Path(__file__).with_name("leash.py")
LOG_MAX_BYTES = 10_000_000
PRIVATE_UMASK = 0o077
HARMLESS_VARIABLES = ("PATH", "LD_LIBRARY_PATH")


class StartBlocked(Exception):
    """A program cannot be started now. The message says why, and how to mend it."""


@dataclass(frozen=True)
class Account:
    """A system user without privileges."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class StopStep:
    """One signal of a stop sequence and how long the program may take to obey it."""

    signal: signal.Signals
    limit_s: float


@dataclass(frozen=True)
class Program:
    """A command to be kept running.

    `env` adds to our environment, in which the master keys are. Without `inherits_env`, and always with an `account`,
    it adds to nothing but HARMLESS_VARIABLES. `before_start` runs before each start and may raise StartBlocked.
    `aliases` are further names of its pid file. Programs with the same `stop_together` are stopped at once, others
    one by one.
    """

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    inherits_env: bool = True
    cwd: Path = BASE_DIR
    account: Account | None = None
    inherited_fds: tuple[int, ...] = ()
    death_signal: signal.Signals = signal.SIGTERM
    stop_steps: tuple[StopStep, ...] = (StopStep(signal.SIGTERM, 10.0),)
    before_start: Callable[[], None] | None = None
    aliases: tuple[str, ...] = ()
    stop_together: str = ""


def spawn(program: Program, *, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Start the program in a session of its own: Ctrl-C in a terminal reaches the supervisor alone.

    Output goes to its log, or standard output to `stdout` as Popen takes it. Call it from the main thread: the kernel's
    parent-death signal follows the thread that forked. Raises StartBlocked.
    """
    if program.before_start is not None:
        program.before_start()
    account = f"{program.account.uid}:{program.account.gid}" if program.account else "-"
    leash = [
        sys.executable,
        "-I",
        "-S",
        str(LEASH),
        str(os.getpid()),
        str(int(program.death_signal)),
        account,
    ]
    with open_log(program.log) as log:
        return subprocess.Popen(
            [*leash, *program.argv],
            stdin=subprocess.DEVNULL,
            stdout=log if stdout is None else stdout,
            stderr=log,
            cwd="/" if program.account else program.cwd,
            env=_environment(program),
            umask=PRIVATE_UMASK,
            pass_fds=program.inherited_fds,
            start_new_session=True,
        )


def _environment(program: Program) -> dict[str, str]:
    if program.inherits_env and program.account is None:
        return {**os.environ, **program.env}
    return {**{name: os.environ[name] for name in HARMLESS_VARIABLES if name in os.environ}, **program.env}


def open_log(path: Path) -> BinaryIO:
    """Append to a log that its owner alone can read: it may have links in it that open an account.

    One past LOG_MAX_BYTES is set aside first as NAME.log.1 (one is kept).
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def log_tail(path: Path, *, lines: int = 20) -> str:
    """The last lines of a log, for an error message; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 16_384))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def sweep_group(pid: int) -> None:
    """End what a dead program has left in its process group (pool processes of a killed Celery worker)."""
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: only zombies are left (macOS)
        os.killpg(pid, signal.SIGKILL)


def stop(process: subprocess.Popen[bytes], program: Program) -> int:
    """Stop a program by its steps, at last by SIGKILL. Blocks; returns `Popen.returncode`."""
    for step in program.stop_steps:
        process.send_signal(step.signal)
        with suppress(subprocess.TimeoutExpired):
            process.wait(step.limit_s)
            break
    else:
        process.kill()
    status = process.wait()
    sweep_group(process.pid)
    return status


def describe_exit(status: int) -> str:
    """`Popen.returncode` in words."""
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"
