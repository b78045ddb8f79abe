"""uvicorn's HTTP protocol, which offers the data path the short way to its clients (`apps.gateway.server.direct`)."""

from collections.abc import Callable, Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apps.gateway.server.direct import CLIENT


class CycleClient:
    """The Client of one request, beside the cycle that answers it by ASGI's messages."""

    __slots__ = ("_cycle", "_flow", "_tell", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write
        self._tell: Callable[[], object] | None = None

    def take_body(self) -> bytes | None:
        """As `receive`, but that it never waits."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self._flow.resume_reading()
        return body

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Tell it in the callback in which the connection is lost, or now if it was lost already."""
        self._flow.resume_reading()
        if self._cycle.disconnected:
            tell()
        else:
            self._tell = tell

    def gone(self) -> None:
        """The connection is lost."""
        tell, self._tell = self._tell, None
        if tell is not None and not self._cycle.response_complete:
            tell()

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """As the two messages of an answer in one write. Only for the common case: all else `send` does."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or self._flow.write_paused:
            return False
        if not cycle.keep_alive or cycle.scope["method"] == "HEAD" or status == 304:
            return False
        lines = [b"%b: %b" % header for header in (*cycle.default_headers, *headers)]
        head = b"%b%b\r\n\r\n" % (STATUS_LINE[status], b"\r\n".join(lines))
        if head.count(b"\n") != len(lines) + 2:  # a value that would end its line: `send` refuses it
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._write(head)
        self._write(body)
        cycle.message_event.set()
        cycle.on_response()
        return True

    @property
    def is_ready(self) -> bool:
        """As `send` would find it: nothing to wait for."""
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (
            self._flow.write_paused or cycle.disconnected or cycle.response_complete
        )

    def write(self, part: bytes) -> None:
        """A chunk of a chunked body."""
        self._write(b"%x\r\n%b\r\n" % (len(part), part))


class GatewayProtocol(HttpToolsProtocol):
    """For uvicorn's option `http`."""

    client_of_request: CycleClient | None = None
    """Of the request that is answered now, or was last."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.client_of_request is not None:
            self.client_of_request.gone()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        client = self.client_of_request = CycleClient(cycle)
        cycle.scope["extensions"] = {CLIENT: client}  # type: ignore[dict-item]  # a dict there by the types: ours is not
        super()._start_asgi_task(cycle, app)
