"""The framing of application/vnd.amazon.eventstream: messages with headers and two checksums. Pure.

Source: "Event stream encoding" in AWS's documentation of Amazon Transcribe, and of Smithy's event streams."""

import struct
import zlib
from typing import Final

import msgspec

MAX_MESSAGE_BYTES: Final = 16 << 20
MAX_KNOWN: Final = 32
"""So many different headers are kept: Bedrock's streams have six."""
_PRELUDE: Final = struct.Struct(">III")
_CHECKSUM_BYTES: Final = 4
_LEAST: Final = _PRELUDE.size + _CHECKSUM_BYTES
_STRING: Final = 7
_VALUE_BYTES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Type of a header -> bytes of its value; 6 (bytes) and 7 (text) tell their own length."""


class _Damaged(ValueError):
    """What came is no event stream."""


class Message(msgspec.Struct):
    """One message. Of the headers only those that are text."""

    headers: dict[str, str]
    payload: bytes
    size: int
    """Bytes of the whole message."""


class MessageSplitter:
    """Collects bytes and gives back whole messages, whatever the reads were."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._known: dict[bytes, dict[str, str]] = {}
        """Headers that came before: nearly all messages of a stream have the same few."""
        self.is_damaged = False
        """A checksum, a length or a header is wrong: nothing from there on makes sense."""

    def feed(self, received: bytes) -> list[Message]:
        """The messages that these bytes complete, up to the first damage."""
        if not self._buffer and (message := self._whole(received)) is not None:
            return [message]
        messages: list[Message] = []
        begin, buffer = 0, self._buffer or received
        if buffer is self._buffer:
            self._buffer += received
        try:
            while not self.is_damaged and (message := self._next(buffer, begin)) is not None:
                messages.append(message)
                begin += message.size
        except _Damaged:
            self.is_damaged = True
        if buffer is self._buffer:
            del self._buffer[:begin]
        elif begin < len(received):
            self._buffer += received[begin:]
        return messages

    def _whole(self, received: bytes) -> Message | None:
        """The message that a read is, if its headers came before; None for any other read. The checksum of all of it
        covers its lengths."""
        end = len(received) - _CHECKSUM_BYTES
        if end < _PRELUDE.size or self.is_damaged:
            return None
        size, headers_size, _ = _PRELUDE.unpack_from(received)
        border = _PRELUDE.size + headers_size
        headers = self._known.get(received[_PRELUDE.size : border]) if size == end + _CHECKSUM_BYTES else None
        if headers is None or not received.endswith(zlib.crc32(received[:end]).to_bytes(_CHECKSUM_BYTES)):
            return None
        return Message(headers, received[border:end], size)

    def _next(self, buffer: bytes | bytearray, begin: int) -> Message | None:
        """The message that begins there; None while it is not complete."""
        left = len(buffer) - begin
        if left < _PRELUDE.size:
            return None
        size, headers_size, checksum = _PRELUDE.unpack_from(buffer, begin)
        if zlib.crc32(buffer[begin : begin + _PRELUDE.size - _CHECKSUM_BYTES]) != checksum:
            raise _Damaged("the checksum of a prelude")
        if not _LEAST + headers_size <= size <= MAX_MESSAGE_BYTES:
            raise _Damaged("the length of a message")
        if size > left:
            return None
        raw, end = bytes(buffer[begin : begin + size]), size - _CHECKSUM_BYTES
        if zlib.crc32(raw[:end]) != int.from_bytes(raw[end:]):
            raise _Damaged("the checksum of a message")
        border = _PRELUDE.size + headers_size
        packed = raw[_PRELUDE.size : border]
        headers = self._known.get(packed)
        if headers is None:
            headers = _headers(packed)
            if len(self._known) < MAX_KNOWN:
                self._known[packed] = headers
        return Message(headers, raw[border:end], size)


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
