"""One supervisor a home: an advisory lock that the kernel drops with its holder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from crun.home import Home


class AlreadyRunning(Exception):
    """Another process runs the servers of this home."""


@contextmanager
def hold_lock(home: Home) -> Iterator[None]:
    """Hold the home for this process.

    Raises AlreadyRunning with the holder's process id in its message.
    """
    home.create()
    home.run.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(home.run / "crun.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            message = f"CRUN is already running on {home.path} (process {holder}). Stop it first: kill {holder}"
            raise AlreadyRunning(message) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
