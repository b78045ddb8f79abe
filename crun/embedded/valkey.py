"""The embedded Valkey: a private server on a unix socket, its append-only file in $CRUN_HOME."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable

from crun.embedded.binaries import find_valkey
from crun.embedded.errors import EmbeddedServerError
from crun.home import Home
from crun.supervisor.program import Program, StopStep, log_tail, spawn

SETTINGS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # the append-only file is the copy on disk
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "loglevel": "notice",
    "logfile": '""',
}


def prepare_valkey(home: Home, *, durable: bool = True) -> Program:
    """Everything before the start; `home.sockets` must be there (PostgreSQL's preparation makes it, see servers.py).

    `durable=False` is for tests: nothing is written to disk. Raises EmbeddedServerError.
    """
    home.valkey.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = {**SETTINGS, "dir": f'"{home.valkey.resolve()}"', "unixsocket": f'"{home.valkey_socket}"'}
    if not durable:
        settings["appendonly"] = "no"
    configuration = home.valkey / "valkey.conf"
    configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return Program(
        name="valkey",
        argv=(str(find_valkey()), str(configuration)),
        log=home.logs / "valkey.log",
        inherits_env=False,
        stop_steps=(StopStep(signal.SIGTERM, 15.0),),
    )


def start_valkey(home: Home, *, durable: bool = True) -> subprocess.Popen[bytes]:
    """Prepare and start; the server may not answer yet (see `wait_for_valkey`)."""
    return spawn(prepare_valkey(home, durable=durable))


def wait_for_valkey(home: Home, *, limit_s: float = 60.0, is_alive: Callable[[], bool] = lambda: True) -> None:
    """Return once the server answers PING, its data loaded.

    Raises EmbeddedServerError after `limit_s`, or as soon as `is_alive` says no.
    """
    deadline = time.monotonic() + limit_s
    while not _answers(home):
        if time.monotonic() > deadline or not is_alive():
            log = home.logs / "valkey.log"
            raise EmbeddedServerError(f"Valkey does not answer. Last lines of {log}:\n{log_tail(log)}")
        time.sleep(0.02)


def _answers(home: Home) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        try:
            client.connect(str(home.valkey_socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")  # while loading it answers -LOADING
        except OSError:
            return False
