"""Names that people give to things: one line, and nothing in it that hides or turns the text around. Pure."""

import unicodedata
from typing import Final

from apps.core.errors import InvalidInput

_HIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls (line breaks, NUL and tabs among them), halves of characters, and Unicode's own line breaks."""
_TURNING: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make text run the other way, so that a name reads as another. Joiners, which scripts need, may be."""


def is_plain(text: str) -> bool:
    """Whether the text can be a name."""
    return not any(_is_hidden(character) for character in text)


def check_name(text: str, *, of: str, longest: int = 100) -> str:
    """The name without blanks around it. Raises InvalidInput, whose words begin with `of`: "a key"."""
    name = text.strip()
    if not 1 <= len(name) <= longest:
        raise InvalidInput(f"{of}'s name has 1 to {longest} characters")
    if not is_plain(name):
        raise InvalidInput(f"{of}'s name is one line of text without control characters")
    return name


def one_line(text: str, longest: int) -> str:
    """The text as one line of at most `longest` characters: what is no plain character becomes a blank, and blanks
    become one. A text that was cut ends with “…”."""
    line = " ".join("".join(" " if _is_hidden(character) else character for character in text).split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def _is_hidden(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in _HIDDEN
