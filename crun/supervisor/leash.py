"""Exec wrapper for children: ends with its parent, drops privileges, then becomes the program. Run by path.

    python -I -S leash.py PARENT_PID DEATH_SIGNAL UID:GID|- PROGRAM [ARGUMENT ...]

Why a program of its own: the kernel forgets the parent-death signal when a process changes its user, so the order is
user first, signal second, exec third; and running Python code between fork and exec is not safe once threads exist.
It imports nothing of CRUN, and it is loaded before the user changes: that user may be unable to read our files.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def drop_privileges(account: str) -> None:
    """Become UID:GID for good, without the groups of the old user."""
    uid, gid = (int(part) for part in account.split(":"))
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def end_with_parent(parent_pid: int, death_signal: int) -> None:
    """Ask the kernel (Linux only) for `death_signal` when the parent is gone, be it by `kill -9`."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it died before the request was in place
        sys.exit(1)


def main() -> None:
    parent_pid, death_signal, account, *argv = sys.argv[1:]
    if account != "-":
        drop_privileges(account)
    end_with_parent(int(parent_pid), int(death_signal))
    # Ignored signals stay ignored through exec: Python ignores the first two, a shell's `&` the next two.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main()
