"""All children of one installation: signals in, orderly start and stop out."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from crun.home import Home
from crun.supervisor.keeper import Keeper
from crun.supervisor.pidfiles import MARK, PidFiles
from crun.supervisor.program import Program, describe_exit, log_tail, spawn, sweep_group

Probe = Callable[[], Awaitable[str | None]]  # asks a child whether it is ready: None, or what is in the way
MAX_EARLY_DEATHS = 5
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StartFailed(Exception):
    """A child did not get ready. The message carries the end of its log."""


class StopRequested(Exception):
    """Somebody asked to stop before the start was complete."""


class Crew:
    """The children, in the order of their start. Use it inside its `signals()` block, in the main thread."""

    def __init__(self, home: Home, *, say: Callable[[str], None]) -> None:
        self.stop_requested = asyncio.Event()
        self._hasten = asyncio.Event()
        self._say = say
        self._pid_files = PidFiles(home.run)
        self._keepers: list[Keeper] = []
        self._mark = {MARK: str(home.path)}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Answer signals while the block runs: first Ctrl-C stops, a second one hastens."""
        loop = asyncio.get_running_loop()
        handled = [number for number in STOP_SIGNALS if not _is_nohup(number)]
        for number in handled:
            loop.add_signal_handler(number, self.request_stop)
        loop.add_signal_handler(signal.SIGCHLD, self._notice)
        self._pid_files.write(["crun"], os.getpid())
        try:
            yield
        finally:
            self._pid_files.remove(["crun"])
            for number in (*handled, signal.SIGCHLD):
                loop.remove_signal_handler(number)

    def request_stop(self) -> None:
        """Begin to stop; called again, stop faster."""
        if self.stop_requested.is_set():
            self._hasten.set()
        self.stop_requested.set()

    def keep(self, program: Program) -> Keeper:
        """Start a program and keep it running."""
        marked = replace(program, env={**program.env, **self._mark})
        keeper = Keeper(marked, self._pid_files, say=self._say)
        keeper.task.add_done_callback(self._keeper_ended)
        self._keepers.append(keeper)
        return keeper

    async def until_ready(self, probe: Probe, keeper: Keeper | None, *, limit_s: float) -> None:
        """Return once the probe finds no obstacle.

        Raises StartFailed when that takes longer than `limit_s` or any child dies again and again, StopRequested when
        somebody asks to stop.
        """
        deadline = time.monotonic() + limit_s
        while obstacle := await probe():
            if self.stop_requested.is_set():
                raise StopRequested
            for kept in self._keepers:
                if kept.deaths >= MAX_EARLY_DEATHS:
                    raise StartFailed(_failure(kept.program, "keeps dying"))
            if time.monotonic() > deadline:
                late = f"is not ready after {limit_s:g} s: {obstacle}"
                raise StartFailed(_failure(keeper.program, late) if keeper else f"The start {late}")
            await asyncio.sleep(0.05)

    async def run_once(self, program: Program) -> str:
        """Run a program to its end; returns its standard output.

        Raises StartFailed when it fails, StopRequested when somebody asks to stop meanwhile.
        """
        process = spawn(replace(program, env={**program.env, **self._mark}), stdout=subprocess.PIPE)
        output = asyncio.create_task(asyncio.to_thread(process.communicate))
        stopping = asyncio.create_task(self.stop_requested.wait())
        try:
            await asyncio.wait({output, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not output.done():
                raise StopRequested
            text = (await output)[0].decode()
        finally:
            stopping.cancel()
            sweep_group(process.pid)
            await output
        if process.returncode != 0:
            raise StartFailed(_failure(program, describe_exit(process.returncode)))
        return text

    async def stop(self) -> None:
        """Stop all children in reverse order of their start, those with the same `stop_together` at once."""
        groups: dict[str, list[Keeper]] = {}
        for keeper in self._keepers:
            groups.setdefault(keeper.program.stop_together or keeper.program.name, []).append(keeper)
        outcomes: list[BaseException | None] = []
        for group in reversed(groups.values()):
            stopping = (keeper.stop(self._hasten) for keeper in group)
            outcomes += await asyncio.gather(*stopping, return_exceptions=True)
        for defect in filter(None, outcomes):
            raise defect

    def _keeper_ended(self, task: "asyncio.Task[None]") -> None:
        """A keeper that ends by an exception is a defect: stop everything; `stop` raises it."""
        if not task.cancelled() and task.exception() is not None:
            self.stop_requested.set()

    def _notice(self) -> None:
        for keeper in self._keepers:
            keeper.notice()


def _is_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def _failure(program: Program, what: str) -> str:
    return f"{program.name} {what}. Last lines of {program.log}:\n{log_tail(program.log)}"
