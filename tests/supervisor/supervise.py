"""A supervisor of stand-in children in a process of its own: `supervise.py HOME NAME=SCRIPT ...`."""

import asyncio
import sys
from pathlib import Path

from crun.home import Home
from crun.supervisor.crew import Crew
from crun.supervisor.lock import hold_lock
from crun.supervisor.pidfiles import end_leftovers
from crun.supervisor.program import Program


async def run(home: Home, scripts: dict[str, str]) -> None:
    crew = Crew(home, say=print)
    with crew.signals():
        for name, script in scripts.items():
            crew.keep(Program(name=name, argv=("/bin/sh", "-c", script), log=home.logs / f"{name}.log"))
        await crew.stop_requested.wait()
        await crew.stop()


if __name__ == "__main__":
    place = Home(Path(sys.argv[1]))
    with hold_lock(place):
        end_leftovers(place)
        asyncio.run(run(place, dict(argument.split("=", 1) for argument in sys.argv[2:])))
