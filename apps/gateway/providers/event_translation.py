"""What translators of foreign streams share: events in, chunks of Chat Completions out. Pure."""

import time
from abc import ABC, abstractmethod
from typing import Any, Final

from apps.gateway.dialects.native_stream import Watcher
from apps.gateway.dialects.published import STOP_REASON
from apps.gateway.dialects.sse import EventSplitter, events
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import CONTENT_FILTERED, UPSTREAM_FAILED, UPSTREAM_OVERLOADED, ErrorKind

DONE: Final = b"data: [DONE]\n\n"
GARBAGE: Final = b"data: ?\n\n"
"""What stands for an event that is no JSON: it is counted further on."""


Frame = tuple[bytes, bytes]
"""What stands before and after the piece of text in a chunk."""
_NOTHING_NEW: Final = b'data: {"choices":[]}\n\n'
"""Where an event says nothing to the chat and who watches need not wait for the next one that does."""
_END: Final = b'},"finish_reason":null}]}\n\n'


def read_object(payload: bytes) -> dict[str, Any] | None:
    """The JSON object that an event says; None for anything else."""
    try:
        told = read_json(payload)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def error_event(kind: ErrorKind) -> bytes:
    """The upstream failed in the middle of its answer. Its own words end here."""
    return b'data: {"error":' + write_json({"message": "", "type": kind.type, "code": kind.code}) + b"}\n\n"


FAILED: Final = error_event(UPSTREAM_FAILED)
OVERLOADED: Final = error_event(UPSTREAM_OVERLOADED)
FILTERED: Final = error_event(CONTENT_FILTERED)


class ChunkWriter:
    """Writes the chunks of one answer, each with the same head. Names and ids in it are replaced by ours further on."""

    def __init__(self) -> None:
        self._head = (
            b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":%d,"model":"upstream","choices":'
            % int(time.time())
        )

    def frame(self, field: str) -> Frame:
        """Around a piece of text as it stands in JSON, in this field of the first choice."""
        return self._head + b'[{"index":0,"delta":{"%b":' % field.encode(), _END

    def call_frame(self, call: int, kind: str = "function", field: str = "arguments") -> Frame:
        """Around a piece of the text with which a call is made."""
        inner = b'"tool_calls":[{"index":%d,"%b":{"%b":' % (call, kind.encode(), field.encode())
        return self._head + b'[{"index":0,"delta":{' + inner, b"}}]" + _END

    def delta(
        self,
        delta: dict[str, Any],
        *,
        index: int = 0,
        finish_reason: str | None = None,
        logprobs: object = None,
        usage: object = None,
        service_tier: object = None,
    ) -> bytes:
        """A chunk with a piece of one choice."""
        choice: dict[str, Any] = {"index": index, "delta": delta, "finish_reason": finish_reason}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return self._chunk(choice, usage, service_tier)

    def ending(self, finish_reason: str, *, stop: str = "", usage: object = None, service_tier: object = None) -> bytes:
        """The chunk that says why the only choice ends; `stop` is the stop sequence that it met, if that is known."""
        choice: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": finish_reason}
        if stop:
            choice[STOP_REASON] = stop
        return self._chunk(choice, usage, service_tier)

    def _chunk(self, choice: dict[str, Any], usage: object, service_tier: object) -> bytes:
        tail = b"" if service_tier is None else b',"service_tier":' + write_json(service_tier)
        return self._head + write_json([choice]) + tail + _usage(usage) + b"}\n\n"

    def usage(self, usage: object) -> bytes:
        """A chunk with nothing but usage."""
        return self._head + b"[]" + _usage(usage) + b"}\n\n"


def with_usage(after: bytes, usage: bytes) -> bytes:
    """The end of a chunk, with usage as it stands in JSON."""
    return b'%b,"usage":%b}\n\n' % (after[:-3], usage)


class EventTranslator(ABC):
    """A stream of server-sent events, translated one by one."""

    def __init__(self, watcher: Watcher | None = None) -> None:
        """`watcher` gets to see the events, too."""
        self._watcher = watcher
        self._splitter = EventSplitter()

    def feed(self, received: bytes) -> bytes:
        """The translated events that these bytes complete; b"" while there is none."""
        passed, at = b"", 0
        if self._splitter.is_empty:
            while (piece := self._known_piece(received, at)) is not None:
                chunk, at = piece
                passed += chunk
                if at == len(received):
                    return passed
            received = received[at:]
        block = self._splitter.feed(received)
        ready = passed + b"".join([self._event(event) for event in events(block)]) if block else passed
        if self._splitter.is_overfull:
            return ready + FAILED
        return _NOTHING_NEW if not ready and self._watcher is not None and self._watcher.has_news else ready

    def end(self) -> bytes:
        """What was still to be said when the connection closed."""
        rest = self._splitter.rest()
        return (self._event(rest) if rest else b"") + self._closing()

    def _known_piece(self, received: bytes, at: int) -> tuple[bytes, int] | None:
        """(the chunk, where the next event begins) of an event there that says a piece of text, goes on with one before
        it and is known by its pattern. None for any other, of which nothing is noted yet."""
        return None

    @abstractmethod
    def _event(self, event: bytes) -> bytes:
        """One event, without the empty line behind it."""

    def _closing(self) -> bytes:
        """What follows when the upstream has said all."""
        return b""


def _usage(usage: object) -> bytes:
    return b"" if usage is None else b',"usage":' + write_json(usage)
