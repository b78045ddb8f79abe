"""Writing as root into a folder that PostgreSQL's user owns: whatever lies there may be a link laid for us."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crun.embedded.errors import EmbeddedServerError


def append_text(folder: Path, name: str, text: str) -> None:
    """Append to a file that the owner of the folder has made.

    Raises EmbeddedServerError for anything but a plain file of that owner.
    """
    with _entered(folder) as place:
        # NONBLOCK: a pipe that nobody reads must not hold us up
        descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        with os.fdopen(descriptor, "ab") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.fstat(place).st_uid:
                raise EmbeddedServerError(f"{folder / name} is no plain file of the owner of {folder}.")
            file.write(text.encode())


def replace_text(folder: Path, name: str, text: str) -> None:
    """Write a file anew, readable for all who may enter the folder; readers see the old one or the new.

    Raises EmbeddedServerError when it cannot be written.
    """
    scratch = f"{name}.new"
    with _entered(folder) as place:
        with suppress(FileNotFoundError):
            os.unlink(scratch, dir_fd=place)
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=place)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            os.fchmod(descriptor, 0o644)  # by descriptor: the name may be another file's by now
        os.replace(scratch, name, src_dir_fd=place, dst_dir_fd=place)


@contextmanager
def _entered(folder: Path) -> Iterator[int]:
    """A descriptor of the folder itself, whatever its name leads to later."""
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            yield place
        finally:
            os.close(place)
    except OSError as error:
        raise EmbeddedServerError(f"{folder} cannot be written: {error}") from error
