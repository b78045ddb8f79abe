"""The truth log: what the sandbox accepted and sent, one JSON line an event, durable; and its reader.

Order, which tests may rely on:
1. the `request` line is on disk before the first byte of the answer leaves;
2. a `chunk` line is written after the kernel took all bytes of the chunk: the log never claims too much;
3. the `end` line follows the last write (or the moment the client was seen to be gone).
Lines of one turn of the event loop, and all that gather while the disk is busy, share one write and one
fsync, made by a thread of its own: streams wait for the disk only when MAX_BACKLOG lines are waiting.
"""

import asyncio
import fcntl
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from crun.sandbox.answers import Usage
from crun.sandbox.steps import Outcome

MAX_BACKLOG = 20_000


@dataclass(frozen=True, slots=True)
class TruthEntry:
    """What happened to one request. `outcome` is None while it runs, for ever when the sandbox was killed."""

    n: int
    request_id: str
    model: str
    stream: bool
    prompt_tokens: int
    time: float
    chunks: int = 0
    tokens: int = 0  # completion tokens in the chunks sent, by the chunk lines
    outcome: str | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_sent: bool = False
    earlier: tuple["TruthEntry", ...] = ()  # former attempts that carried the same request id, oldest first

    @property
    def attempts(self) -> int:
        return 1 + len(self.earlier)


def read_truth(path: str | os.PathLike[str]) -> dict[str, TruthEntry]:
    """The log by request id, in order of first arrival. A torn last line (sandbox killed) is left out."""
    runs: dict[int, dict[str, Any]] = {}
    for line in _whole_lines(Path(path)):
        match line.pop("event"):
            case "request":
                runs[line["n"]] = line
            case "chunk":
                runs[line["n"]].update(chunks=line["index"] + 1, tokens=line["tokens"])
            case "end":
                runs[line["n"]].update(line)
    by_request: dict[str, TruthEntry] = {}
    for fields in runs.values():
        entry = TruthEntry(**fields)
        before = by_request.get(entry.request_id)
        earlier = () if before is None else (*before.earlier, replace(before, earlier=()))
        by_request[entry.request_id] = replace(entry, earlier=earlier)
    return by_request


def wait_for_ends(path: str | os.PathLike[str], count: int, timeout_s: float = 10.0) -> dict[str, TruthEntry]:
    """The log once at least `count` request ids have their end line. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while True:
        entries = read_truth(path)
        ended = sum(entry.outcome is not None for entry in entries.values())
        if ended >= count:
            return entries
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ended} of {count} requests have ended in {os.fspath(path)} after {timeout_s} s")
        time.sleep(0.02)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    content = path.read_bytes()
    return [orjson.loads(line) for line in content[: content.rfind(b"\n") + 1].split(b"\n") if line]


@dataclass(frozen=True, slots=True)
class _Batch:
    lines: list[bytes]
    waiters: list[asyncio.Future[None]]


class TruthLog:
    """The writing side. One process owns a file; its numbers go on where the file's last run stopped."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        on_failure: Callable[[OSError], object],
        sync: Callable[[int], None] = os.fsync,
    ) -> None:
        """Open the file, start the thread; needs a running loop. Raises OSError, also for an owned file."""
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._sync = sync
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._last_number = _mend(self._descriptor, Path(path))
        except (OSError, ValueError):
            os.close(self._descriptor)
            raise
        self._lines: list[bytes] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._flush_is_due = False
        self._backlog = 0
        self._batches: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._commit_batches, name="truth", daemon=True)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """So many lines wait for the disk that senders should wait too (`durable`)."""
        return self._backlog > MAX_BACKLOG

    def next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def append(self, line: bytes) -> None:
        """Take one line (without its line end) for the next write."""
        self._lines.append(line)
        self._backlog += 1
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    async def durable(self) -> None:
        """Return when every line appended so far is on disk."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)
        await waiter

    async def close(self) -> None:
        """Write what is left, end the thread, close the file."""
        self._flush()
        self._batches.put(None)
        await self._loop.run_in_executor(None, self._thread.join)
        os.close(self._descriptor)

    def _flush(self) -> None:
        self._flush_is_due = False
        if self._lines or self._waiters:
            self._batches.put(_Batch(self._lines, self._waiters))
            self._lines, self._waiters = [], []

    def _commit_batches(self) -> None:
        """The thread: whatever has gathered goes out in one write and one fsync."""
        ending = False
        while not ending:
            batch = self._batches.get()
            batches = []
            while batch is not None:
                batches.append(batch)
                if self._batches.empty():
                    break
                batch = self._batches.get()
            ending = batch is None
            lines = [line for taken in batches for line in taken.lines]
            try:
                self._write(lines)
            except OSError as error:
                # Without its log the sandbox is no oracle: it stops, and tells nobody that a line is durable.
                self._loop.call_soon_threadsafe(self._on_failure, error)
                return
            self._loop.call_soon_threadsafe(self._settle, batches, len(lines))

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        content = b"\n".join(lines) + b"\n"
        written = os.write(self._descriptor, content)
        if written < len(content):
            raise OSError(f"only {written} of {len(content)} bytes could be written to the truth log")
        self._sync(self._descriptor)

    def _settle(self, batches: list[_Batch], lines: int) -> None:
        self._backlog -= lines
        for batch in batches:
            for waiter in batch.waiters:
                if not waiter.done():
                    waiter.set_result(None)


def _mend(descriptor: int, path: Path) -> int:
    """Cut off a torn last line; the highest request number in what is left."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.ftruncate(descriptor, end)
    return max((line["n"] for line in _whole_lines(path)), default=0)


class Ticket:
    """One accepted request on its way through the log. Without a log it only counts."""

    def __init__(self, log: TruthLog | None, request_id: str | None) -> None:
        self._log = log
        self._n = 0 if log is None else log.next_number()
        self._request_id = request_id or f"sandbox-{self._n}"
        self._usage = Usage(0, 0, 0, 0)
        self._chunks = 0
        self._tokens = 0
        self._usage_sent = False
        self._chunk_start = b'{"event":"chunk","n":%d,"request_id":%b,"index":' % (
            self._n,
            orjson.dumps(self._request_id),
        )

    async def accept(self, *, model: str, stream: bool, usage: Usage) -> None:
        """Log the request; return when its line is on disk."""
        self._usage = usage
        if self._log is None:
            return
        line = {
            "event": "request",
            "n": self._n,
            "request_id": self._request_id,
            "model": model,
            "stream": stream,
            "prompt_tokens": usage.prompt_tokens,
            "time": time.time(),
        }
        self._log.append(orjson.dumps(line))
        await self._log.durable()

    def count(self, tokens: int, *, carries_usage: bool) -> None:
        """Bytes with `tokens` completion tokens were sent."""
        self._tokens += tokens
        self._usage_sent = self._usage_sent or carries_usage

    def chunk(self) -> None:
        """What was just counted was a chunk of a stream."""
        if self._log is not None:
            self._log.append(self._chunk_start + b'%d,"tokens":%d}' % (self._chunks, self._tokens))
        self._chunks += 1

    async def pace(self) -> None:
        """Wait for the disk when it is far behind."""
        if self._log is not None and self._log.is_behind:
            await self._log.durable()

    def end(self, outcome: Outcome) -> None:
        """Log how it ended. Reasoning tokens count only for an answer that was completed."""
        if self._log is None:
            return
        complete = outcome is Outcome.COMPLETE
        reasoning = self._usage.reasoning_tokens if complete else 0
        line = {
            "event": "end",
            "n": self._n,
            "request_id": self._request_id,
            "outcome": outcome.value,
            "prompt_tokens": self._usage.prompt_tokens,
            "completion_tokens": self._tokens + reasoning,
            "cached_tokens": self._usage.cached_tokens,
            "reasoning_tokens": reasoning,
            "usage_sent": self._usage_sent,
        }
        self._log.append(orjson.dumps(line))
