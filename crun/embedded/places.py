"""Where the embedded servers keep data and sockets: in $CRUN_HOME, or behind a link when that cannot work.

Two things can be wrong with a folder in $CRUN_HOME. As root, PostgreSQL runs as another user, who may be unable to
enter it (/root, `mktemp -d`). And the path of a unix socket is limited to 107 bytes. Nobody's folders are opened up
for that: the real folder gets a random name elsewhere, private to the server's user, and $CRUN_HOME links to it.

The server's user owns its data and its sockets, never the folder around them: else it could put a link in their place,
and root would follow it.
"""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from crun.embedded.account import can_enter
from crun.embedded.binaries import SHARED_PLACE
from crun.embedded.errors import EmbeddedServerError
from crun.home import Home
from crun.supervisor.program import Account

LONGEST_SOCKET_NAME = len("/.s.PGSQL.5432")
OWNER_NOTE = "home"  # beside moved data: the path of the $CRUN_HOME that it belongs to
MAX_SOCKET_PATH_BYTES = 103  # macOS; Linux allows 107


def choose_data_place(home: Home, account: Account | None, *, lasting: bool = True) -> Path:
    """The folder for PostgreSQL's data. It is not created; when it lies elsewhere, its parent is.

    Raises EmbeddedServerError when $CRUN_HOME links to data that is gone.
    """
    link = home.postgres
    if link.is_symlink() and not link.exists():
        message = f"{link} points to {link.readlink()}, which is gone. Restore it, or remove {link} to start afresh."
        raise EmbeddedServerError(message)
    if link.exists():
        return link.resolve()
    if can_enter(home.path, account):
        return home.path.resolve() / link.name
    folder = _new_folder(account, lasting=lasting)
    (folder / OWNER_NOTE).write_text(str(home.path))
    os.chown(folder, -1, account.gid if account else -1)
    folder.chmod(0o710)
    return folder / link.name


def abandoned_folders() -> list[Path]:
    """Data under /var/lib/crun whose $CRUN_HOME is gone or links to it no longer. Root alone can tell."""
    abandoned = []
    for folder in sorted(SHARED_PLACE.glob("crun-*")):
        with suppress(OSError):
            link = Path((folder / OWNER_NOTE).read_text()) / "postgres"
            if link.resolve() != folder / "postgres":
                abandoned.append(folder)
    return abandoned


def prepare_sockets(home: Home, account: Account | None) -> Path:
    """Make $CRUN_HOME/sockets a folder that the servers can use, private to `account`; returns its real path."""
    link = home.path / "sockets"
    if _serves(home.sockets, account):
        return home.sockets
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)  # holds sockets only
    if can_enter(home.path, account) and _short_enough(home.path.resolve() / link.name):
        link.mkdir(mode=0o700)
        _give(link, account)
    else:
        folder = _new_folder(account, lasting=False)
        _give(folder, account)
        link.symlink_to(folder)
    return home.sockets


def release_sockets(home: Home) -> None:
    """Remove the sockets folder after a stop: nothing stays behind in the temporary directory."""
    link = home.path / "sockets"
    # One step along the link and no further: rmtree refuses what has become a link itself.
    shutil.rmtree(link.readlink() if link.is_symlink() else link, ignore_errors=True)
    link.unlink(missing_ok=True)


def _new_folder(account: Account | None, *, lasting: bool) -> Path:
    """A new folder, ours alone, where `account` can get to: under /var/lib/crun, or a temporary one."""
    temporary = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108 -- mkdtemp names the folder
    for base in [SHARED_PLACE, *temporary] if lasting else temporary:
        try:
            if base == SHARED_PLACE:
                base.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not (can_enter(base, account) and _short_enough(base / "crun-00000000")):
                continue
            return Path(tempfile.mkdtemp(prefix="crun-", dir=base.resolve()))
        except OSError:
            continue
    places = ", ".join(str(base) for base in (SHARED_PLACE, *temporary))
    raise EmbeddedServerError(f"No place for the files of PostgreSQL's user: tried {places}.")


def _serves(sockets: Path, account: Account | None) -> bool:
    """Whether an existing folder will do. One in a temporary directory may have been replaced by a stranger's."""
    try:
        found = sockets.stat()
    except FileNotFoundError:
        return False
    owner = account.uid if account else os.geteuid()
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == 0o700
    return is_private and can_enter(sockets, account) and _short_enough(sockets)


def _short_enough(folder: Path) -> bool:
    return len(os.fsencode(folder)) + LONGEST_SOCKET_NAME <= MAX_SOCKET_PATH_BYTES


def _give(folder: Path, account: Account | None) -> None:
    if account is not None:
        os.chown(folder, account.uid, account.gid)
