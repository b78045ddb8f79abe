"""What /proc tells about processes: who belongs to a home, open descriptors, memory, connections."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
ESTABLISHED = "01"


def all_pids() -> list[int]:
    """Every process there is."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def mentioning(path: Path) -> list[str]:
    """Processes whose command line or environment names `path`, described."""
    needle = os.fsencode(path)
    found = []
    for pid in all_pids():
        with suppress(OSError):
            line = (PROC / str(pid) / "cmdline").read_bytes()
            if pid != os.getpid() and needle in line + (PROC / str(pid) / "environ").read_bytes():
                found.append(f"{pid}: {line.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def family(pid: int) -> list[int]:
    """A process and all its descendants, parents first."""
    parents: dict[int, list[int]] = {}
    for child in all_pids():
        with suppress(OSError):
            fields = (PROC / str(child) / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(child)
    found = [pid]
    for parent in found:
        found.extend(parents.get(parent, ()))
    return found


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def rss_bytes(pid: int) -> int:
    """Resident memory."""
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> list[str]:
    """What each open descriptor of a process is."""
    found = []
    for path in (PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            found.append(str(path.readlink()))
    return found


def connections(pid: int, *, to_port: int | None = None, from_port: int | None = None) -> list[int]:
    """Ports of the far ends of a process's established TCP connections, by remote or by local port."""
    own = set(descriptors(pid))
    found = []
    for line in (PROC / str(pid) / "net" / "tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_, inode = line.split()[:10]
        near, far = (int(address.rpartition(":")[2], 16) for address in (local, remote))
        wanted = far == to_port if to_port is not None else near == from_port
        if state == ESTABLISHED and wanted and f"socket:[{inode}]" in own:
            found.append(far)
    return found
