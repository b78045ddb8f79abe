"""Server-sent events without I/O: cutting a byte stream at event borders, whatever the reads were."""

MAX_EVENT_BYTES = 1 << 20
_DATA = b"data:"


class EventSplitter:
    """Collects bytes and gives back blocks of whole events. Borders are an empty line, with LF or CRLF."""

    def __init__(self) -> None:
        self._buffer = b""
        self.is_overfull = False
        """An event of more than MAX_EVENT_BYTES came; it is dropped, and nothing after it makes sense."""

    @property
    def is_empty(self) -> bool:
        """Whether the next read begins an event."""
        return not self._buffer

    def feed(self, received: bytes) -> bytes:
        """All whole events that are complete now, as one block of bytes with LF line ends; b"" when there is none."""
        buffer = self._buffer + received if self._buffer else received
        if b"\r" in buffer:
            buffer = _with_plain_line_ends(buffer)
        end = buffer.rfind(b"\n\n") + 2
        if end == 1:
            self._keep(buffer)
            return b""
        self._keep(buffer[end:])
        return buffer[:end]

    def rest(self) -> bytes:
        """What came after the last border when the stream ended: an event without its empty line, or a torn one."""
        rest, self._buffer = self._buffer, b""
        return rest.replace(b"\r", b"")

    def _keep(self, rest: bytes) -> None:
        self.is_overfull = len(rest) > MAX_EVENT_BYTES
        self._buffer = b"" if self.is_overfull else rest


def events(block: bytes) -> list[bytes]:
    """The events of a block, without the empty lines between them."""
    return [event for event in block.split(b"\n\n") if event]


def event_data(event: bytes) -> bytes:
    """The `data` of an event; b"" for a comment or an event without data.

    Several lines are joined by a space, so that the payload stays one line wherever it goes: JSON means the same."""
    if event.startswith(_DATA) and b"\n" not in event:
        return event[len(_DATA) :].strip()
    lines = [line[len(_DATA) :].strip() for line in event.split(b"\n") if line.startswith(_DATA)]
    return b" ".join(lines)


def _with_plain_line_ends(buffer: bytes) -> bytes:
    """CRLF as LF. A CR at the very end stays: its LF may be in the next read."""
    tail = b"\r" if buffer.endswith(b"\r") else b""
    return buffer[: len(buffer) - len(tail)].replace(b"\r\n", b"\n") + tail
