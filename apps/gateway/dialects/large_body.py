"""A large body without its long strings: media, which are checked in steps and put back once the rest was read. Pure.

To read 20 MB at once keeps everybody else waiting for 40 ms. A string is cut out only where nothing but itself can be
read in it: it is ASCII without a backslash, between two quotes of which the first begins it. In its place stands a
name that nobody can guess.
"""

import re
import secrets
from collections.abc import Generator
from typing import Any, Final

import msgspec
import orjson

from apps.gateway.errors import BAD_REQUEST, GatewayError

LARGE_BYTES: Final = 2 << 20
"""A smaller body is read at once, in four milliseconds at most."""
LONG_BYTES: Final = 32 << 10
"""A string that is no shorter is cut out wherever it stands; one of half of that, now and then."""
STEP_BYTES: Final = 1 << 20
"""So much is looked at before others have their turn."""
_PIECE_BYTES: Final = 256 << 10
_TOKEN_BYTES: Final = 16
_NAME_LENGTH: Final = 1 + 2 * _TOKEN_BYTES + 8
_OUTSIDE: Final = b" \t\r\n,:]}"
"""Whatever follows a quote that ends a string, if the body is JSON at all."""


class LargeBody:
    """What is left of a body, and the strings that were cut out of it. Its length is that of the whole."""

    __slots__ = ("_cuts", "_size", "_token", "rest")

    def __init__(self, rest: bytes, cuts: list[str], *, token: str, size: int) -> None:
        self.rest = rest
        self._cuts = cuts
        self._token = token
        self._size = size

    def __len__(self) -> int:
        return self._size

    def put_back(self, body: dict[str, Any]) -> None:
        """Have the strings where they were, in what was read of the rest. Raises GatewayError for one that is a key."""
        token, cuts = self._token, self._cuts
        containers: list[Any] = [body]
        while containers:
            container = containers.pop()
            if type(container) is dict:
                if any(key.startswith(token) for key in container):
                    raise GatewayError(BAD_REQUEST, "A key of an object in the request body is too long.")
                values: Any = container.items()
            else:
                values = enumerate(container)
            for place, value in values:
                kind = type(value)
                if kind is str:
                    if value.startswith(token):
                        container[place] = cuts[int(value[len(token) :], 16)]
                elif kind is dict or kind is list:
                    containers.append(value)

    def told(self, error: orjson.JSONDecodeError) -> str:
        """What is wrong with the rest, with the place in the whole."""
        before = error.doc[: error.pos]
        hidden = column = 0
        for match in re.finditer(f"{self._token}[0-9a-f]{{8}}", before):
            length = len(self._cuts[int(match[0][-8:], 16)]) - _NAME_LENGTH
            hidden += length
            column += length if match.start() > before.rfind("\n") else 0
        return f"{error.msg}: line {error.lineno} column {error.colno + column} (char {error.pos + hidden})"


Body = bytes | LargeBody
"""What a request is read from."""


def cut_in_steps(raw: bytes, *, long_bytes: int = LONG_BYTES) -> Generator[None, None, LargeBody | None]:
    """Cut its long strings out of a body, with a turn for others at each `yield`; None when it has none.

    Whether the body is JSON is for the reader of the rest to tell: it is if and only if the rest is."""
    found = _long_strings(raw, long_bytes)
    yield
    view = memoryview(raw)
    token = f"x{secrets.token_hex(_TOKEN_BYTES)}"
    parts: list[bytes | memoryview] = []
    cuts: list[str] = []
    end = looked_at = 0
    for first, last in found:
        text = ""
        for start in range(first, last, _PIECE_BYTES):
            piece = view[start : min(start + _PIECE_BYTES, last)]
            looked_at += len(piece)
            if (plain := _plain(piece)) is None:
                break
            text += plain  # grows where it is: to make it in one piece would take ten milliseconds
            if looked_at >= STEP_BYTES:
                looked_at = 0
                yield
        if len(text) == last - first:
            parts += (view[end:first], b"%b%08x" % (token.encode(), len(cuts)))
            cuts.append(text)
            end = last
    if not cuts:
        return None
    yield
    rest = b"".join((*parts, view[end:]))
    if rest.count(token.encode()) != len(cuts):  # by chance once in the life of some universes
        return None
    return LargeBody(rest, cuts, token=token, size=len(raw))


def _long_strings(raw: bytes, long_bytes: int) -> list[tuple[int, int]]:
    """Where there may be one: (behind the quote before it, at the quote after it)."""
    found: list[tuple[int, int]] = []
    stride, end = long_bytes // 2, 0
    for start in range(0, len(raw), stride):
        if start < end or raw.find(b'"', start, start + stride) >= 0:
            continue
        before, after = raw.rfind(b'"', 0, start), raw.find(b'"', start)
        end = len(raw) if after < 0 else after
        begins = before >= 0 and before + 1 < end and raw[before + 1] not in _OUTSIDE
        if begins and raw[before - 1 : before] != b"\\":
            found.append((before + 1, end))
    return found


def _plain(piece: memoryview) -> str | None:
    """What these bytes stand for within a string, if that is themselves and nothing else."""
    try:
        text = msgspec.json.decode(b"".join((b'"', piece, b'"')), type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return text if len(text) == len(piece) and text.isascii() else None
