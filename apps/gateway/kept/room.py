"""The one room in the store for all kept answers: its script, and how large it may become."""

from pathlib import Path
from typing import Final

from django.conf import settings

from apps.core.scripts import Argument, Script

_ROOM: Final = (Path(__file__).parent / "scripts" / "room.lua").read_text()


def script(*files: Path) -> Script:
    """A script that may use the functions of the room: the texts of the files, behind those of the room."""
    return Script.of("\n".join([_ROOM, *(file.read_text() for file in files)]))


def bounds() -> tuple[Argument, Argument]:
    """The most bytes of one organization, and of all together."""
    return settings.ANSWERS_ORGANIZATION_BYTES, settings.ANSWERS_BYTES
