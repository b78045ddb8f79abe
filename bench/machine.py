"""What the figures were measured on."""

import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """The machine at one moment."""

    date: str
    cores: int
    cpu: str
    kernel: str
    python: str
    load_average: float
    """Over the minute before: above zero, something else was running too."""


def describe_machine() -> Machine:
    """This machine, now."""
    cores = len(os.sched_getaffinity(0))
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=cores,
        cpu=_cpu_model(),
        kernel=platform.release(),
        python=platform.python_version(),
        load_average=os.getloadavg()[0],
    )


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()
