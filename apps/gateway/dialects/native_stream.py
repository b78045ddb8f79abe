"""Streams that pass as they are, because caller and upstream speak the same dialect: what is common to them. Pure."""

import re
from abc import ABC, abstractmethod
from typing import Any, Final, Protocol

from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.vendor_json import read_json

_DONE: Final = b"data: [DONE]\n\n"
_FAILED: Final = b'data: {"error":'


class Watcher(Protocol):
    """Who gets to see the events of a stream, each once and in their order, before a chat is made of them."""

    def saw(self, told: dict[str, Any], payload: bytes) -> None:
        """An event: what its JSON says, and that as it came."""

    def saw_piece(self, event: re.Match[bytes]) -> None:
        """A whole event that the translator knew by its pattern: it says a piece of text and nothing else, and goes on
        with one before it."""

    @property
    def has_news(self) -> bool:
        """Whether it waits to be asked, even if the chat has nothing to say."""


class NativeStream(ABC):
    """An upstream's stream under our names, kept back until the same in the form of a chat was let pass: that is what
    is billed, held for and cut. It watches the translator that makes this chat: the stream is read once."""

    def __init__(self) -> None:
        self._ready: list[bytes] = []
        self._is_over = False

    @property
    def has_news(self) -> bool:
        """Whether something waits for the chat."""
        return bool(self._ready)

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

    @abstractmethod
    def saw(self, told: dict[str, Any], payload: bytes) -> None:
        """Have in `_ready` what the client gets of an event."""

    @abstractmethod
    def saw_piece(self, event: re.Match[bytes]) -> None:
        """The same of an event that goes on with one before it."""

    @abstractmethod
    def _ended(self) -> bytes:
        """The last events of an answer whose record is closed."""

    @abstractmethod
    def _failed(self, error: dict[str, Any]) -> bytes:
        """The last event of an answer that is not whole."""
