"""Streams that pass as they are, because caller and upstream speak the same dialect: what is common to them. Pure."""

from abc import ABC, abstractmethod
from typing import Any, Final, Protocol

from apps.gateway.dialects.sse import EventSplitter, event_data, events
from apps.gateway.dialects.vendor_json import read_json

_DONE: Final = b"data: [DONE]\n\n"
_NOTHING_NEW: Final = b'data: {"choices":[]}\n\n'
"""Where an event says nothing to the chat and need not wait for the next one that does."""
_FAILED: Final = b'data: {"error":'


class Translator(Protocol):
    """What makes a chat of the same stream."""

    def feed(self, received: bytes) -> bytes:
        """The chat's events that these bytes complete."""

    def end(self) -> bytes:
        """What was still to be said."""


class NativeStream(ABC):
    """An upstream's stream under our names, kept back until the same in the form of a chat was let pass: that is what
    is billed, held for and cut. It is the translator of that chat, too."""

    def __init__(self, inner: Translator) -> None:
        self._inner = inner
        self._splitter = EventSplitter()
        self._ready: list[bytes] = []
        self._is_over = False

    def feed(self, received: bytes) -> bytes:
        """The chat's events, which the relay looks at."""
        for event in events(self._splitter.feed(received)):
            self._take_event(event)
        chat = self._inner.feed(received)
        return chat or (_NOTHING_NEW if self._ready else b"")

    def end(self) -> bytes:
        """What the chat's translator still has to say."""
        if rest := self._splitter.rest():
            self._take_event(rest)
        return self._inner.end()

    def passed(self, block: bytes) -> bytes:
        """What the client gets for these events of the chat."""
        if self._is_over:
            return b""
        if block.startswith(_FAILED):
            self._is_over = True
            return self._failed(read_json(event_data(block.strip()))["error"])
        ready, self._ready = b"".join(self._ready), []
        if not block.endswith(_DONE):
            return ready
        self._is_over = True
        return ready + self._ended()

    def _take_event(self, event: bytes) -> None:
        payload = event_data(event)
        try:
            told = read_json(payload)
        except ValueError:
            return  # the chat's translator tells what becomes of garbage
        if isinstance(told, dict):
            self._take(told, payload)

    @abstractmethod
    def _take(self, told: dict[str, Any], payload: bytes) -> None:
        """Have in `_ready` what the client gets of an event."""

    @abstractmethod
    def _ended(self) -> bytes:
        """The last events of an answer whose record is closed."""

    @abstractmethod
    def _failed(self, error: dict[str, Any]) -> bytes:
        """The last event of an answer that is not whole."""
