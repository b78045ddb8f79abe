"""uvicorn's HTTP protocol, which offers the data path to write parts of a stream at once."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from apps.gateway.server.direct import BODY_WRITER


class CycleWriter:
    """The BodyWriter of one request and its answer."""

    __slots__ = ("_cycle", "_flow", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._flow = cycle.flow
        self._write = cycle.transport.write

    @property
    def is_ready(self) -> bool:
        """Whether a part can be sent now: as uvicorn's `send`, but that it never waits."""
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (
            self._flow.write_paused or cycle.disconnected or cycle.response_complete
        )

    def write(self, part: bytes) -> None:
        """Send a part, which is not empty. Only when `is_ready`."""
        self._write(b"%x\r\n%b\r\n" % (len(part), part))


class GatewayProtocol(HttpToolsProtocol):
    """For uvicorn's option `http`."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {BODY_WRITER: CycleWriter(cycle)}  # type: ignore[dict-item]  # no server but ours
        super()._start_asgi_task(cycle, app)
