"""A large request on its way out: its long strings are never copied, but written as JSON a piece at a time. Pure.

To write 20 MB at once keeps everybody else waiting for as long as to read it."""

import secrets
from collections.abc import Callable, Generator, Iterator
from typing import Any, Final

from apps.gateway.dialects.large_body import LARGE_BYTES, LONG_BYTES, STEP_BYTES
from apps.gateway.dialects.vendor_json import write_json

PIECE_CHARACTERS: Final = 256 << 10
_TOKEN_BYTES: Final = 16
_NUMBER_LENGTH: Final = 8


class Tail:
    """A long string from one of its characters on, which nobody copies."""

    __slots__ = ("start", "text")

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.start = start

    def __str__(self) -> str:
        return self.text[self.start :]


def tail_of(text: str, start: int) -> str | Tail:
    """`text[start:]`, as a Tail where that would be a long copy: what has one in it is written by `written`."""
    return Tail(text, start) if len(text) > LARGE_BYTES else text[start:]


class LargeContent:
    """JSON in pieces. How long it is, is known once it was weighed."""

    __slots__ = ("_parts", "_size")

    def __init__(self, content: dict[str, Any]) -> None:
        self._parts = _taken_apart(content)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def pieces(self) -> Iterator[bytes]:
        """All of it, no piece longer than its writing takes a fraction of a millisecond."""
        for part in self._parts:
            if isinstance(part, bytes):
                yield from (part[start : start + STEP_BYTES] for start in range(0, len(part), STEP_BYTES))
                continue
            text, start = part
            for at in range(start, len(text), PIECE_CHARACTERS):
                yield write_json(text[at : at + PIECE_CHARACTERS])[1:-1]

    def weigh(self, note: Callable[[bytes], object] | None = None) -> Generator[None, None, None]:
        """Find out its length, with a turn for others at each `yield`. `note` sees every piece, for a digest."""
        size = looked_at = 0
        for piece in self.pieces():
            size += len(piece)
            looked_at += len(piece)
            if note is not None:
                note(piece)
            if looked_at >= STEP_BYTES:
                looked_at = 0
                yield
        self._size = size


Content = bytes | LargeContent
"""What is sent to an upstream."""


def written(content: dict[str, Any], *, size: int) -> Content:
    """A request as JSON. `size` is that of the request which it was made from, in bytes."""
    return write_json(content) if size <= LARGE_BYTES else LargeContent(content)


def _taken_apart(content: dict[str, Any]) -> list[bytes | tuple[str, int]]:
    """Its JSON, in which a long string is (text, where it begins): what stands between its quotes is not written yet.

    The strings are taken out of their places only while the rest is written; what has them in it is the caller's."""
    token = f"x{secrets.token_hex(_TOKEN_BYTES)}"
    found = list(_long_strings(content))
    try:
        for number, (container, place, _, _) in enumerate(found):
            container[place] = f"{token}{number:0{_NUMBER_LENGTH}x}"
        first, *others = write_json(content).split(token.encode())
    finally:
        for container, place, value, _ in found:
            container[place] = value
    parts: list[bytes | tuple[str, int]] = [first]
    for other in others:
        parts += (found[int(other[:_NUMBER_LENGTH], 16)][3], other[_NUMBER_LENGTH:])
    return parts


def _long_strings(content: dict[str, Any]) -> Iterator[tuple[Any, Any, str | Tail, tuple[str, int]]]:
    """(where it is, its key or index there, what is there, (text, where it begins)) of each."""
    containers: list[Any] = [content]
    while containers:
        container = containers.pop()
        places: Any = container.items() if isinstance(container, dict) else enumerate(container)
        for place, value in places:
            if isinstance(value, dict | list):
                containers.append(value)
            elif isinstance(value, Tail):
                yield container, place, value, (value.text, value.start)
            elif isinstance(value, str) and len(value) >= LONG_BYTES:
                yield container, place, value, (value, 0)
