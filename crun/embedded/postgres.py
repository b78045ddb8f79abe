"""The embedded PostgreSQL: a private server on a unix socket, its data in $CRUN_HOME."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psycopg

from crun.embedded.account import server_account
from crun.embedded.binaries import PostgresBinaries, find_postgres, make_reachable
from crun.embedded.errors import EmbeddedServerError
from crun.embedded.foreign import append_text, replace_text
from crun.embedded.places import choose_data_place, prepare_sockets
from crun.home import Home
from crun.supervisor.program import Account, Program, StopStep, log_tail, spawn, stop

DATABASE = SUPERUSER = "crun"
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}
LEFTOVER_LIMIT_S = 20.0

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",  # names the socket; nothing listens on TCP
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "jit": "off",
    "wal_level": "replica",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "10min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
    "log_lock_waits": "on",
    "log_min_duration_statement": "2s",
    "log_parameter_max_length": "0",
}
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
VOLATILE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def prepare_postgres(home: Home, *, durable: bool = True) -> Program:
    """Everything before the start: binaries, data directory, sockets, settings. Returns the program to run.

    `durable=False` is for tests: no fsync, and nothing of it is meant to outlive the run.
    Raises EmbeddedServerError.
    """
    home.create()
    log = home.logs / "postgres.log"
    account = server_account(home.postgres)
    place = choose_data_place(home, account, lasting=durable)
    binaries = make_reachable(find_postgres(major=_data_version(place)), account)
    if not place.exists():
        _initialize(place, binaries, account, log=log, durable=durable)
    if not home.postgres.exists():
        home.postgres.symlink_to(place)
    sockets = prepare_sockets(home, account)
    _write_settings(place, sockets, durable=durable)
    return Program(
        name="postgres",
        argv=(str(binaries.postgres), "-D", str(place)),
        log=log,
        env=ENVIRONMENT,
        inherits_env=False,
        account=account,
        death_signal=signal.SIGINT,
        # fast shutdown; then immediate shutdown, which recovers at the next start as after a crash
        stop_steps=(StopStep(signal.SIGINT, 30.0), StopStep(signal.SIGQUIT, 5.0)),
        before_start=partial(clear_way, place),
    )


def start_postgres(home: Home, *, durable: bool = True) -> subprocess.Popen[bytes]:
    """Prepare and start; the server may not answer yet (see `wait_for_postgres`)."""
    return spawn(prepare_postgres(home, durable=durable))


def wait_for_postgres(home: Home, *, limit_s: float = 60.0, is_alive: Callable[[], bool] = lambda: True) -> None:
    """Return once the server answers and the database `crun` exists.

    Raises EmbeddedServerError after `limit_s`, or as soon as `is_alive` says no.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            ensure_database(home)
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline or not is_alive():
                log = home.logs / "postgres.log"
                message = f"PostgreSQL does not answer: {error}\nLast lines of {log}:\n{log_tail(log)}"
                raise EmbeddedServerError(message) from error
            time.sleep(0.02)
        else:
            return


def ensure_database(home: Home) -> None:
    """Create the database `crun` unless it is there. Raises psycopg.OperationalError while the server is away."""
    with psycopg.connect(
        host=str(home.sockets), user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5
    ) as connection:
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
        if found is None:
            connection.execute(f'CREATE DATABASE "{DATABASE}"')


def clear_way(place: Path) -> None:
    """Make a start possible after `kill -9` or a reboot.

    PostgreSQL sees by itself that the process named in postmaster.pid is gone. It cannot see that the number now
    belongs to some other program (usual in containers, where they start from 1 again), so such a file is removed.
    A server of this data that still runs has lost its supervisor: it is stopped, and its end awaited.
    Raises EmbeddedServerError when it does not end.
    """
    lock = place / "postmaster.pid"
    deadline = time.monotonic() + LEFTOVER_LIMIT_S
    asked = False
    while (pid := _pid_in(lock)) is not None and _runs(pid):
        if not _serves(pid, place):
            lock.unlink(missing_ok=True)
            return
        if not asked:
            os.kill(pid, signal.SIGINT)
            asked = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"A PostgreSQL (process {pid}) already runs on {place} and does not stop.")
        time.sleep(0.05)


def _initialize(place: Path, binaries: PostgresBinaries, account: Account | None, *, log: Path, durable: bool) -> None:
    """Make the data directory, whole or not at all."""
    scratch = place.with_name(place.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)  # an earlier attempt was cut short
    scratch.mkdir(mode=0o700)
    if account is not None:
        os.chown(scratch, account.uid, account.gid)
    argv = [str(binaries.initdb), "-D", str(scratch), "-U", SUPERUSER, "-E", "UTF8", "--data-checksums"]
    argv += ["--auth-local=trust", "--auth-host=reject", "--no-instructions", *_locale(binaries)]
    if not durable:
        argv.append("--no-sync")
    initdb = Program("initdb", tuple(argv), log=log, env=ENVIRONMENT, inherits_env=False, account=account)
    process = spawn(initdb)
    try:
        status = process.wait()
    except BaseException:  # Ctrl-C above all: initdb must not go on writing
        stop(process, initdb)
        raise
    if status != 0:
        raise EmbeddedServerError(f"initdb failed. Last lines of {log}:\n{log_tail(log)}")
    note = "# Written anew by each start of CRUN. ALTER SYSTEM overrides it."
    append_text(scratch, "postgresql.conf", f"\n{note}\ninclude 'crun.conf'\n")
    scratch.rename(place)


def _locale(binaries: PostgresBinaries) -> list[str]:
    """Byte order for sorting, Unicode for upper and lower case: the same on every machine."""
    if binaries.major >= 17:
        return ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return ["--locale=C.UTF-8"]


def _write_settings(place: Path, sockets: Path, *, durable: bool) -> None:
    """Write crun.conf."""
    settings = {**SETTINGS, **(DURABLE if durable else VOLATILE), "unix_socket_directories": f'"{sockets}"'}
    quoted = {name: value.replace("'", "''") for name, value in settings.items()}
    replace_text(place, "crun.conf", "".join(f"{name} = '{value}'\n" for name, value in quoted.items()))


def _data_version(place: Path) -> int | None:
    """Major version that wrote the data; None when there is none yet."""
    try:
        return int((place / "PG_VERSION").read_text())
    except FileNotFoundError:
        return None


def _pid_in(lock: Path) -> int | None:
    try:
        match = re.match(r"-?(\d+)\n", lock.read_text())
    except FileNotFoundError:
        return None
    return int(match[1]) if match else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _serves(pid: int, place: Path) -> bool:
    """Whether the process is a PostgreSQL started on this data directory, by its command line."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # no /proc (macOS), or just ended
        argv = subprocess.run(
            ["/bin/ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, check=False
        ).stdout
    return os.fsencode(place) in argv and b"postgres" in argv
