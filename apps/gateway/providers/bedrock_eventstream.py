"""The framing of application/vnd.amazon.eventstream: messages with headers and two checksums. Pure.

Source: "Event stream encoding" in AWS's documentation of Amazon Transcribe, and of Smithy's event streams."""

import struct
import zlib
from typing import Final, NamedTuple

MAX_MESSAGE_BYTES: Final = 16 << 20
_PRELUDE: Final = struct.Struct(">III")
_CHECKSUM_BYTES: Final = 4
_LEAST: Final = _PRELUDE.size + _CHECKSUM_BYTES
_STRING: Final = 7
_VALUE_BYTES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Type of a header -> bytes of its value; 6 (bytes) and 7 (text) tell their own length."""


class _Damaged(ValueError):
    """What came is no event stream."""


class Message(NamedTuple):
    """One message. Of the headers only those that are text."""

    headers: dict[str, str]
    payload: bytes


class MessageSplitter:
    """Collects bytes and gives back whole messages, whatever the reads were."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.is_damaged = False
        """A checksum, a length or a header is wrong: nothing from there on makes sense."""

    def feed(self, received: bytes) -> list[Message]:
        """The messages that these bytes complete, up to the first damage."""
        messages: list[Message] = []
        self._buffer += received
        begin = 0
        try:
            while not self.is_damaged and (size := _size_of_next(self._buffer, begin)):
                messages.append(_message(bytes(self._buffer[begin : begin + size])))
                begin += size
        except _Damaged:
            self.is_damaged = True
        del self._buffer[:begin]
        return messages


def _size_of_next(buffer: bytearray, begin: int) -> int:
    """Bytes of the message that begins there; 0 while it is not complete."""
    if len(buffer) - begin < _PRELUDE.size:
        return 0
    size, headers_size, checksum = _PRELUDE.unpack_from(buffer, begin)
    if zlib.crc32(buffer[begin : begin + _PRELUDE.size - _CHECKSUM_BYTES]) != checksum:
        raise _Damaged("the checksum of a prelude")
    if not _LEAST + headers_size <= size <= MAX_MESSAGE_BYTES:
        raise _Damaged("the length of a message")
    return size if size <= len(buffer) - begin else 0


def _message(raw: bytes) -> Message:
    (checksum,) = struct.unpack_from(">I", raw, len(raw) - _CHECKSUM_BYTES)
    if zlib.crc32(raw[:-_CHECKSUM_BYTES]) != checksum:
        raise _Damaged("the checksum of a message")
    border = _PRELUDE.size + int.from_bytes(raw[4:8])
    return Message(_headers(raw[_PRELUDE.size : border]), raw[border:-_CHECKSUM_BYTES])


def _headers(raw: bytes) -> dict[str, str]:
    headers, at = {}, 0
    try:
        while at < len(raw):
            name_size = raw[at]
            name = raw[at + 1 : at + 1 + name_size].decode()
            kind, at = raw[at + 1 + name_size], at + 2 + name_size
            size = _VALUE_BYTES.get(kind)
            if size is None:
                (size,) = struct.unpack_from(">H", raw, at)
                at += 2
            if kind == _STRING:
                headers[name] = raw[at : at + size].decode()
            at += size
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise _Damaged("a header") from error
    if at != len(raw):
        raise _Damaged("the length of a header")
    return headers
