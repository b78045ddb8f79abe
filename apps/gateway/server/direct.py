"""Parts of a stream that go to the client as they come, without a turn of the event loop for each.

ASGI's `send` is awaited, so somebody must be woken for every part. An upstream's bytes come in a callback, and a part
that needs no waiting can be written to the client's connection right there. A server that offers that puts a BodyWriter
into the request's ASGI extensions (`crun.serve` does); a stream that can use it is a DirectSource. Where either is
missing, everything goes the ordinary way: whoever wraps a stream to see its parts sees them all.
"""

from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, Protocol

BODY_WRITER: Final = "crun.body_writer"
"""The name of the extension in `scope["extensions"]`."""


class BodyWriter(Protocol):
    """Sends parts of a body that has begun. Used only while nobody awaits `send`, which all else goes through: the
    start of an answer, whatever must wait for a slow client, and the end."""

    @property
    def is_ready(self) -> bool:
        """Whether a part can be sent now: the client is there and reads what it gets."""

    def write(self, part: bytes) -> None:
        """Send a part, which is not empty. Only when `is_ready`."""


class DirectSource(AsyncGenerator[bytes, None]):
    """The parts of a stream, some of which can go straight to its client."""

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        """`parts` are those that do not."""
        self._parts = parts

    def connect(self, client: BodyWriter) -> None:
        """The start of the answer was sent, and from now on the next part is awaited when no part is being sent."""
        raise NotImplementedError

    def __anext__(self) -> Coroutine[Any, Any, bytes]:
        return self._parts.__anext__()

    def asend(self, value: None) -> Coroutine[Any, Any, bytes]:
        """The next part."""
        return self._parts.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, bytes]:
        """Let the source deal with an error."""
        return self._parts.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        """End the stream where it is."""
        return self._parts.aclose()
