"""What other processes used: CPU time, user and system, of all threads, and how often they slept. Linux only."""

import time
from contextlib import suppress
from pathlib import Path


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, to the nanosecond.

    This is the sum that /proc/PID/stat shows as utime + stime in ticks of 10 ms, read from the process's CPU clock: the
    kernel's `CPUCLOCK_SCHED` clock of another process has the number `~pid << 3 | 2`. Raises OSError when it has ended.
    """
    return time.clock_gettime(~pid << 3 | 2)


def tree_cpu_s(root: int) -> float:
    """Of a process, its living descendants, and their children that have ended and were waited for."""
    pids = {root, *descendants(root)}
    return sum(cpu_s(pid) + _reaped_s(pid) for pid in pids)


def wakeups(pid: int) -> int:
    """How often the living threads of a process waited for something and were woken."""
    found = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with suppress(OSError):  # a thread that has just ended
            found += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


def descendants(root: int) -> list[int]:
    """All living processes below `root`."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, open_ = [], [root]
    while open_:
        below = children.get(open_.pop(), [])
        found += below
        open_ += below
    return found


def _reaped_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[13]) + int(fields[14])) / 100 if fields else 0.0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (state, parent, ...); [] for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
