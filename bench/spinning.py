"""A server that does nothing but use CPU: what the machine itself adds to waits.

    python -m bench.spinning --port 9301 --request-us 400 --chunk-us 45

It answers like the benchmark's upstream, but takes so much CPU in all for each request, or for each chunk after the
first, between the moment at which it could answer and the moment at which it does. A process that uses as much on this
machine waits about as long as this one, whatever it is written in.
"""

import argparse
import time

import uvloop

from bench.pacing import Pacer
from bench.upstream import Connection, content_chunk, serve


class Spinner:
    """Brings what this thread uses to an even sum: what reading and writing cost is in it."""

    def __init__(self) -> None:
        self._used_ns = 0

    def spin(self, cpu_ns: int) -> None:
        """Return when the thread has used so much since the last call returned."""
        self._used_ns += cpu_ns
        while (now_ns := time.thread_time_ns()) < self._used_ns:
            pass
        self._used_ns = now_ns


class SpinningConnection(Connection):
    """A connection of the upstream that lets its answers wait."""

    def __init__(self, pacer: Pacer, pace_ns: int, *, spinner: Spinner, request_ns: int, chunk_ns: int) -> None:
        super().__init__(pacer, pace_ns)
        self._spinner = spinner
        self._request_ns = request_ns
        self._chunk_ns = chunk_ns

    def _answer(self, request: bytes | bytearray) -> None:
        self._spinner.spin(self._request_ns)
        super()._answer(request)

    def _send_chunk(self, due_ns: int) -> None:
        self._spinner.spin(self._chunk_ns)
        self._transport.write(content_chunk(due_ns))


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="bench.spinning", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, default=5.0, help="time between two chunks of a stream")
    parser.add_argument("--request-us", type=float, default=0.0, help="CPU of an answer, or of a stream's beginning")
    parser.add_argument("--chunk-us", type=float, default=0.0, help="CPU of each further chunk")
    options = parser.parse_args()
    pace_ns, request_ns = int(options.pace_ms * 1e6), int(options.request_us * 1000)
    chunk_ns, spinner = int(options.chunk_us * 1000), Spinner()

    def connection(pacer: Pacer) -> Connection:
        return SpinningConnection(pacer, pace_ns, spinner=spinner, request_ns=request_ns, chunk_ns=chunk_ns)

    uvloop.run(serve(options.port, connection))


if __name__ == "__main__":
    main()
