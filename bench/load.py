"""The load generator: a process of its own that keeps some connections busy and checks every answer.

It reads jobs from standard input and writes to standard output, one JSON object a line each: a job is answered by
`{"ready": true}` when its connections are open and warm, the line `go` starts it, and its result ends it.
"""

import asyncio
import json
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, cast

import uvloop

TIME_LIMIT_S = 120.0
_HEAD_END = b"\r\n\r\n"
_STAMP = re.compile(rb'"content":"(\d{20})"')
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class WrongAnswer(Exception):
    """Not the answer that the upstream gave, or none."""


@dataclass(frozen=True)
class Job:
    """What to send how often. `chunks` is 0 for answers in one piece.

    `limit` is the field that says how many chunks there are to be; an event with content has `content` in it, and a
    stream ends with `end`. `per_second` is how many start in a second, evenly spaced; 0 starts each as soon as a
    connection is free.
    `most_opening` is how many streams may wait for their first event at a time, whatever is due; 0 is any number."""

    host: str
    port: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    connections: int
    requests: int
    chunks: int
    per_second: float
    most_opening: int = 0
    limit: str = "max_tokens"
    content: str = '"delta":{"content":'
    end: str = "data: [DONE]\n\n"

    def request(self) -> bytes:
        """One whole HTTP request."""
        more = {"stream": True, "stream_options": {"include_usage": True}, self.limit: self.chunks}
        body = json.dumps({**self.body, **(more if self.chunks else {})}, separators=(",", ":")).encode()
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join(lines).encode() + _HEAD_END + body


class Tally:
    """What came back. Times in seconds."""

    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.first_event_s: list[float] = []
        self.delays_s: list[float] = []
        """Of each chunk, from its writing at the upstream to its reading here."""
        self.reads = 0
        self.opening = self.open = self.most_open = 0
        """Streams that wait for their first event, all that have not ended, and the most of those there were."""
        self.held_back: deque[Connection] = deque()
        """Due, but too many are opening."""


class Connection(asyncio.Protocol):
    """Sends the next request when an answer is whole, until its share of the work is done."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._request = b""
        self._parts: list[bytes] = []
        self._missing: int | None = None
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._work: deque[float] = deque()
        self._tally = Tally()
        self._sent_at = 0.0
        self._first_event_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has no common ancestor with it

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._fail(f"the connection was closed after {b''.join(self._parts)[-300:]!r}")

    def run(self, job: Job, work: deque[float], tally: Tally) -> asyncio.Future[None]:
        """Take requests from `work`, which all connections share, until it is empty: the moments they are due."""
        self._job, self._request, self._work, self._tally = job, job.request(), work, tally
        self._done = asyncio.get_running_loop().create_future()
        self._next()
        return self._done

    def _next(self) -> None:
        if not self._work:
            self._done.set_result(None)
            return
        loop, due = asyncio.get_running_loop(), self._work.popleft()
        if due > loop.time():
            loop.call_at(due, self._send)
        else:
            self._send()

    def _send(self) -> None:
        tally = self._tally
        if self._job.chunks:
            if self._job.most_opening and tally.opening >= self._job.most_opening:
                tally.held_back.append(self)
                return
            tally.opening += 1
            tally.open += 1
            tally.most_open = max(tally.most_open, tally.open)
        self._parts, self._missing, self._first_event_at = [], None, 0.0
        self._sent_at = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._tally.reads += 1
        self._parts.append(data)
        if self._job.chunks:
            self._stream_received(data)
        else:
            self._whole_received(data)

    def _stream_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._tally.delays_s += [(now_ns - int(stamp)) / 1e9 for stamp in _STAMP.findall(data)]
        if not self._first_event_at and b"data:" in data:
            self._first_event_at = time.perf_counter()
            self._tally.opening -= 1
            if self._tally.held_back:
                self._tally.held_back.popleft()._send()
        if len(self._parts) == 1 and not data.startswith(b"HTTP/1.1 200"):
            self._fail(f"answered {data[:600]!r}")
        elif (data if len(data) >= len(_LAST_CHUNK) else b"".join(self._parts[-9:])).endswith(_LAST_CHUNK):
            try:
                check_stream(b"".join(self._parts), self._job)
            except WrongAnswer as error:
                self._fail(str(error))
                return
            self._tally.open -= 1
            self._tally.first_event_s.append(self._first_event_at - self._sent_at)
            self._answered()

    def _whole_received(self, data: bytes) -> None:
        if self._missing is None:
            received = b"".join(self._parts)
            end = received.find(_HEAD_END)
            if end < 0:
                return
            if not received.startswith(b"HTTP/1.1 200"):
                self._fail(f"answered {received[:300]!r}")
                return
            self._missing = end + len(_HEAD_END) + _content_length(received[:end]) - len(received)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            if b'"chat.completion"' not in b"".join(self._parts):
                self._fail(f"answered {b''.join(self._parts)[:300]!r}")
                return
            self._answered()

    def _answered(self) -> None:
        self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._next()

    def _fail(self, reason: str) -> None:
        if not self._done.done():
            self._done.set_exception(WrongAnswer(reason))


def check_stream(received: bytes, job: Job) -> None:
    """Raise WrongAnswer unless these are whole HTTP chunks with exactly so many content events and a proper end."""
    events = _unframed(received[received.index(_HEAD_END) + len(_HEAD_END) :])
    content = events.count(job.content.encode())
    if content != job.chunks or not events.endswith(job.end.encode()) or b'"usage":{' not in events:
        raise WrongAnswer(f"{content} of {job.chunks} chunks arrived; the stream ended with {events[-300:]!r}")


def _unframed(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise WrongAnswer(f"no content-length in {head!r}")


async def connect(job: Job) -> list[Connection]:
    """Open the connections and send one small request over each, which is not counted."""
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(job.connections):
        _, connection = await loop.create_connection(lambda: Connection(job), job.host, job.port)
        connections.append(connection)
    first = replace(job, requests=job.connections, chunks=min(job.chunks, 1))
    await drive(connections, first)
    return connections


async def drive(connections: list[Connection], job: Job) -> tuple[Tally, float]:
    """Do the job over these connections; returns what came back and the seconds it took."""
    tally, started = Tally(), time.perf_counter()
    first_due, interval_s = asyncio.get_running_loop().time(), 1 / job.per_second if job.per_second else 0.0
    work = deque(first_due + number * interval_s for number in range(job.requests))
    async with asyncio.timeout(TIME_LIMIT_S):
        await asyncio.gather(*(connection.run(job, work, tally) for connection in connections))
    return tally, time.perf_counter() - started


async def disconnect(connections: list[Connection]) -> None:
    """Close all connections."""
    for connection in connections:
        connection.transport.close()
    await asyncio.sleep(0)


def result_of(job: Job, tally: Tally, wall_s: float) -> dict[str, float]:
    """The figures of one job, times in milliseconds."""
    figures = {
        "wall_s": wall_s,
        "requests_per_s": len(tally.latencies_s) / wall_s,
        "p50_ms": percentile(tally.latencies_s, 50) * 1000,
        "p99_ms": percentile(tally.latencies_s, 99) * 1000,
    }
    if job.chunks:
        figures["most_open"] = tally.most_open
        figures["first_event_p50_ms"] = percentile(tally.first_event_s, 50) * 1000
        figures["first_event_p99_ms"] = percentile(tally.first_event_s, 99) * 1000
        if tally.delays_s:  # the stamps are looked for in chats alone
            figures["delay_p50_ms"] = percentile(tally.delays_s, 50) * 1000
            figures["delay_p99_ms"] = percentile(tally.delays_s, 99) * 1000
        figures["reads_per_chunk"] = tally.reads / (len(tally.latencies_s) * job.chunks)
    return figures


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that is not below `percent` percent of all."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def main() -> None:
    """Serve jobs until standard input ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            job = Job(**json.loads(line))
            try:
                connections = runner.run(connect(job))
                print(json.dumps({"ready": True}), flush=True)
                sys.stdin.readline()
                tally, wall_s = runner.run(drive(connections, job))
                runner.run(disconnect(connections))
                print(json.dumps(result_of(job, tally, wall_s)), flush=True)
            except (WrongAnswer, OSError, TimeoutError) as error:
                print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
                return


if __name__ == "__main__":
    main()
