"""The short way to the client: what a server can offer beside ASGI's messages, each of which costs a turn or two.

ASGI's `send` is awaited, so somebody must be woken for every part of a stream; an upstream's bytes come in a callback,
and a part that needs no waiting can be written to the client's connection right there. A server that offers that, and
the other short cuts here, puts a Client into the request's ASGI extensions (`crun.serve` does); a stream that can use
it is a DirectSource. Where either is missing everything goes the ordinary way: whoever wraps a stream to see its parts
sees them all.
"""

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

CLIENT: Final = "crun.client"
"""The name of the extension in `scope["extensions"]`."""


class Client(Protocol):
    """The client of one request."""

    def take_body(self) -> bytes | None:
        """The body, if all of it is here and nobody received any of it; else None, and `receive` has it."""

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Have it told, once, when the client leaves before it has the whole answer. Then nobody needs to `receive`."""

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Send a whole answer, with its headers, at once. False: nothing was sent, it must go through `send`."""

    def begin(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Send the head of a stream, status 200, with the first part if that comes at once. False: nothing was begun,
        it must go through `send`."""

    def flush(self) -> None:
        """The next part goes through `send`."""

    @property
    def is_ready(self) -> bool:
        """Whether a part of a body can be sent now: its head was sent, the client is there and reads what it gets."""

    def write(self, part: bytes) -> None:
        """Send a part of a body, which is not empty. Only when `is_ready`, and while nobody awaits `send`."""


class DirectSource(AsyncGenerator[bytes, None]):
    """The parts of a stream, some of which can go straight to its client."""

    is_over = False
    """The part that was given last is the last one, so that the end of the body can leave with it."""

    def __init__(self, parts: AsyncGenerator[bytes, None]) -> None:
        """`parts` are those that do not."""
        self._parts = parts

    @abstractmethod
    def connect(self, client: Client) -> None:
        """The start of the answer was sent, and from now on the next part is awaited when no part is being sent."""

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
