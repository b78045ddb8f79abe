"""Taking an embedded server away: stopped, or killed as often as its supervisor brings it back."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.acceptance.installing import Installation
from tests.acceptance.processes import family, signal_all

LOOK_S = 0.02


@asynccontextmanager
async def stopped(installation: Installation, name: str) -> AsyncIterator[None]:
    """The server and all of its processes hang (SIGSTOP) for the length of the block."""
    pids = family(installation.pid(name))
    signal_all(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_all(reversed(pids), signal.SIGCONT)


@asynccontextmanager
async def held_down(installation: Installation, name: str) -> AsyncIterator[list[int]]:
    """The server is killed, and killed again whenever the supervisor has started it; yields whom it killed."""
    killed: list[int] = []

    async def kill_on_sight() -> None:
        while True:
            with suppress(FileNotFoundError, ProcessLookupError, ValueError):
                pid = installation.pid(name)
                os.kill(pid, signal.SIGKILL)
                if pid not in killed:
                    killed.append(pid)
            await asyncio.sleep(LOOK_S)

    task = asyncio.create_task(kill_on_sight())
    try:
        await asyncio.sleep(LOOK_S * 2)
        yield killed
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
