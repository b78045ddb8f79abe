"""Keeping one program running: start, notice its end, start again after a pause, stop on request."""

import asyncio
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from crun.supervisor.backoff import Backoff
from crun.supervisor.pidfiles import PidFiles
from crun.supervisor.program import Program, StartBlocked, describe_exit, spawn, sweep_group

HASTENED_LIMIT_S = 3.0


class Keeper:
    """Runs one program until `stop`. Its owner calls `notice` whenever some child process has ended."""

    def __init__(self, program: Program, pid_files: PidFiles, *, say: Callable[[str], None]) -> None:
        self.program = program
        self.backoff = Backoff()
        self._pid_files = pid_files
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._noticed = asyncio.Event()
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(self._keep(), name=f"keep {program.name}")

    @property
    def pid(self) -> int | None:
        """The running process, None between two lives."""
        return self._process.pid if self._process else None

    @property
    def age_s(self) -> float:
        """How long the running process has been alive, 0 between two lives."""
        return time.monotonic() - self._started if self._process else 0.0

    @property
    def deaths(self) -> int:
        """How often in a row the program died young."""
        return self.backoff.deaths

    def notice(self) -> None:
        """Some child process has ended: look whether it was this one."""
        self._noticed.set()

    async def stop(self, hasten: asyncio.Event) -> None:
        """Stop the program by its steps. `hasten` set: a program gets one signal, SIGKILL after little time."""
        self._stopping.set()
        for step in self.program.stop_steps:
            if self._process is None or self.task.done():
                break
            self._process.send_signal(step.signal)
            if await self._ends_within(step.limit_s, hasten):
                break
        else:
            if self._process is not None:
                self._process.kill()
        await self.task

    async def _ends_within(self, limit_s: float, hasten: asyncio.Event) -> bool:
        impatience = asyncio.create_task(hasten.wait())
        try:
            await asyncio.wait({self.task, impatience}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not self.task.done() and hasten.is_set():
                await asyncio.wait({self.task}, timeout=min(limit_s, HASTENED_LIMIT_S))
            return self.task.done()
        finally:
            impatience.cancel()

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            self._started = time.monotonic()
            end = await self._live()
            if self._stopping.is_set():
                return
            pause_s = self.backoff.delay_s(time.monotonic() - self._started)
            again = f"starting it again in {pause_s:g} s" if pause_s else "starting it again"
            self._say(f"{self.program.name} {end}: {again} (log: {self.program.log})")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _live(self) -> str:
        """One life of the program; returns how it ended, in words."""
        try:
            self._process = process = spawn(self.program)
        except (StartBlocked, OSError) as error:  # OSError: no process or descriptor left just now
            return f"cannot be started ({error})"
        names = (self.program.name, *self.program.aliases)
        self._pid_files.write(names, process.pid)
        try:
            while True:
                self._noticed.clear()  # before the look: an end in between sets it again
                if (status := process.poll()) is not None:
                    return describe_exit(status)
                await self._noticed.wait()
        finally:
            self._pid_files.remove(names)
            sweep_group(process.pid)
            self._process = None
