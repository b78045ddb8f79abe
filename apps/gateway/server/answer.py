"""What views answer: status, headers, and a body that is whole or a stream. Django's classes cost ten times as much."""

from collections.abc import AsyncGenerator, ItemsView

from apps.gateway.dispatch import Exchange
from apps.gateway.metering.record import Meter
from apps.gateway.server.heartbeat import EVENT_STREAM


class Answer:
    """A whole answer. Names of headers are lower-case."""

    __slots__ = ("content", "headers", "status_code")

    def __init__(self, content: bytes = b"", *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.content = content
        self.status_code = status
        self.headers: dict[str, str] = {} if headers is None else dict(headers)

    def items(self) -> ItemsView[str, str]:
        """The headers."""
        return self.headers.items()


class JsonBytes(Answer):
    """An answer that is JSON already."""

    __slots__ = ()

    def __init__(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, status=status)
        self.headers = {"content-type": "application/json", **(headers or {})}


class EventStream:
    """Server-sent events. Whoever sends it calls `release` at the end, also when nothing was sent."""

    __slots__ = ("_exchange", "headers", "source", "status_code")

    def __init__(self, source: AsyncGenerator[bytes, None], exchange: Exchange) -> None:
        self.status_code = 200
        self.headers = dict(EVENT_STREAM)
        self.source = source
        self._exchange = exchange

    def items(self) -> ItemsView[str, str]:
        """The headers."""
        return self.headers.items()

    @property
    def meter(self) -> Meter:
        """Counts its output."""
        return self._exchange.meter

    def release(self) -> None:
        """Give back what the answer holds."""
        self._exchange.abandon()


Response = Answer | EventStream
