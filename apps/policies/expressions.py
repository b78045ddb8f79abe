"""Searching with RE2, which takes time in proportion to the text whatever the expression is. Pure.

RE2 is given the whole piece with the borders between which to search, so that `\\b` and `^` see what stands around."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import re2

from apps.core.errors import InvalidInput
from apps.policies.pieces import Piece

MAX_PATTERN: Final = 500
"""Characters of an expression."""
MAX_PROGRAM: Final = 1_000
"""Instructions that RE2 makes of one expression: the worst of them read 20 KB of text in 6 ms."""
MAX_KEYWORDS: Final = 200
MAX_KEYWORD: Final = 100
"""Characters of a keyword."""
MAX_KEYWORD_CHARACTERS: Final = 4_000
"""Characters of all keywords of a rule together."""
_PATTERN_MEMORY: Final = 1 << 20
_KEYWORD_MEMORY: Final = 8 << 20
_UNSPACED: Final = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that put no space between words: a word may begin and end anywhere in them."""
BEFORE: Final = rf"(?:[^\pL\pN_]|[{_UNSPACED}])"
AFTER: Final = rf"(?:$|[^\pL\pN_]|[{_UNSPACED}])"

_NONE: Final = (-1, -1)

Accept = Callable[[str, int, int], int]
"""Of a text, the begin and end of what looks right: where it really ends; 0 when it is none."""


class Checks:
    """How many candidates may still be looked at closely; beyond that, what looks right counts."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Expression:
    """One compiled expression. With `is_inner`, what it finds is its group 1, and one character stands before that."""

    __slots__ = ("_accept", "_compiled", "_is_inner", "program")

    def __init__(
        self, pattern: str, *, accept: Accept | None = None, is_inner: bool = False, memory: int, **options: Any
    ) -> None:
        """Raises InvalidInput for what does not compile, saying where."""
        chosen = re2.Options()
        chosen.max_mem, chosen.log_errors = memory, False
        for name, value in options.items():
            setattr(chosen, name, value)
        try:
            self._compiled = re2.compile(pattern, chosen)
        except re2.error as error:
            raise InvalidInput(_refusal(pattern, error)) from None
        self._accept = accept
        self._is_inner = is_inner
        self.program: int = self._compiled.programsize

    def matches_nothing(self) -> bool:
        """Whether it is content with no text at all, and would find that everywhere."""
        return self._compiled.search("") is not None

    def spans(self, piece: Piece, begin: int, stop: int, limit: int, checks: Checks) -> Iterator[tuple[int, int]]:
        """Begin and end of each match, in characters: those that begin in [begin, stop) and end by `limit`."""
        at = begin
        while at < stop:
            start, end = self._next(piece, at, limit)
            if not at <= start < stop:
                return
            if self._accept is not None and checks.left > 0:
                checks.left -= 1
                end = self._accept(piece.text, start, end)
            if end > start:
                yield start, end
                at = end
            else:
                at = start + 1

    def _next(self, piece: Piece, at: int, limit: int) -> tuple[int, int]:
        """The next match that begins at `at` or later; (-1, -1) for none."""
        if not self._is_inner:
            found = self._compiled.search(piece.raw, piece.byte(at), piece.byte(limit))
            return _NONE if found is None else (piece.character(found.start()), piece.character(found.end()))
        first = piece.byte(at - 1) + 1 if at else 0
        found = self._compiled.search(piece.led, first, piece.byte(limit) + 1)
        return _NONE if found is None else (piece.character(found.start(1) - 1), piece.character(found.end(1) - 1))


def pattern(text: str, *, ignore_case: bool) -> Expression:
    """What somebody wrote. Raises InvalidInput for what does not compile, is too large, or would match everywhere."""
    if not text:
        raise InvalidInput("the expression is empty")
    if len(text) > MAX_PATTERN:
        raise InvalidInput(f"an expression has {MAX_PATTERN} characters at most, this one {len(text):,}")
    found = Expression(text, memory=_PATTERN_MEMORY, case_sensitive=not ignore_case)
    if found.program > MAX_PROGRAM:
        message = f"the expression is too large: {found.program:,} steps, and {MAX_PROGRAM:,} are allowed"
        raise InvalidInput(f"{message}; classes of letters and large repetitions make it so")
    if found.matches_nothing():
        raise InvalidInput("the expression also matches an empty text, so it would be found everywhere")
    return found


def keywords(words: tuple[str, ...]) -> Expression:
    """Any of the words, in any case, and not within a longer one. Raises InvalidInput for too many or too long ones."""
    words = tuple(word for each in words if (word := each.strip()))
    if not words:
        raise InvalidInput("there is no keyword")
    if len(words) > MAX_KEYWORDS:
        raise InvalidInput(f"a rule has {MAX_KEYWORDS} keywords at most, this one {len(words):,}")
    for word in words:
        if len(word) > MAX_KEYWORD:
            raise InvalidInput(f"a keyword has {MAX_KEYWORD} characters at most: “{word[:20]}…” has {len(word):,}")
    if sum(map(len, words)) > MAX_KEYWORD_CHARACTERS:
        raise InvalidInput(f"the keywords of a rule have {MAX_KEYWORD_CHARACTERS:,} characters together at most")
    alternatives = "|".join(re2.escape(word) for word in sorted(words, key=len, reverse=True))
    edges = f"{BEFORE}({alternatives}){AFTER}"
    return Expression(edges, is_inner=True, memory=_KEYWORD_MEMORY, case_sensitive=False)


def _refusal(text: str, error: re2.error) -> str:
    said = error.args[0] if error.args else b""
    words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    what, _, fragment = words.partition(": ")
    place = text.find(fragment) if fragment else -1
    where = f" at character {place + 1}" if place >= 0 else ""
    shown = f" (“{fragment}”)" if fragment and fragment != text else ""
    return f"the expression does not compile: {what}{where}{shown}"
