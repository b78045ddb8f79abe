"""Who runs PostgreSQL: it refuses to run as root, so root lends it a user without privileges."""

import os
import pwd
import stat
from pathlib import Path

from crun.embedded.errors import EmbeddedServerError
from crun.supervisor.program import Account

DEFAULT_NAMES = ("postgres", "nobody")


def server_account(data: Path) -> Account | None:
    """The user that PostgreSQL must run as, or None for the user of this process.

    As root: the owner of an existing data directory, else $CRUN_PG_USER, else `postgres`, else `nobody`.
    Raises EmbeddedServerError when there is none, or when this user cannot use the data directory.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            message = f"{data} belongs to {_name(owner)}: start CRUN as that user or as root, or set another CRUN_HOME."
            raise EmbeddedServerError(message)
        return None
    if owner == 0:
        raise EmbeddedServerError(f"{data} belongs to root, and PostgreSQL refuses to run as root: chown it.")
    wanted = [_name(owner)] if owner is not None else [os.environ.get("CRUN_PG_USER") or "", *DEFAULT_NAMES]
    for name in filter(None, wanted):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            if name == os.environ.get("CRUN_PG_USER"):
                raise EmbeddedServerError(f"CRUN_PG_USER names {name}, which is no user here.") from None
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    if owner is not None:
        return Account(name=str(owner), uid=owner, gid=data.stat().st_gid)
    raise EmbeddedServerError("PostgreSQL refuses to run as root: set CRUN_PG_USER to a user without privileges.")


def can_enter(path: Path, account: Account | None) -> bool:
    """Whether the user may pass through `path` and all folders above it. None, the user of this process, may."""
    if account is None:
        return True
    resolved = path.resolve()
    return all(_allows(folder, account, bit=0o1) for folder in (resolved, *resolved.parents))


def can_read(path: Path, account: Account | None) -> bool:
    """Whether the user may read `path`, folders above it included."""
    if account is None:
        return True
    return can_enter(path.parent, account) and _allows(path.resolve(), account, bit=0o4)


def _allows(path: Path, account: Account, *, bit: int) -> bool:
    found = path.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid == account.uid:
        return bool(mode & bit << 6)
    if found.st_gid == account.gid:
        return bool(mode & bit << 3)
    return bool(mode & bit)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
