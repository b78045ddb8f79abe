"""What is common to the dialects that put an answer together from pieces of Chat Completions. Pure."""

from abc import ABC, abstractmethod
from typing import Any

from apps.gateway.dialects.chat_pieces import Calls, Interjections, Turn
from apps.gateway.dialects.order import in_order

Event = dict[str, Any]


class PutTogether(ABC):
    """Makes the events of one answer, in order: `add` for each piece of it, then `end`."""

    def __init__(self, id_of_calls: str) -> None:
        """Calls to which no id was given get one that begins so."""
        self._calls = Calls(id_of_calls)
        self._interjections = Interjections(self._calls)
        self._events: list[Event] = []
        """Those that nobody has taken yet."""
        self._reason = ""

    def add(self, choice: dict[str, Any], delta: dict[str, Any]) -> list[Event]:
        """The events that a piece of the answer stands for; `delta` may be a whole message."""
        self._add(choice, self._interjections.put_off(choice, delta))
        for piece in self._interjections.due():
            self._add(*piece)
        return self._ready()

    def add_whole(self, choice: dict[str, Any]) -> list[Event]:
        """The events of a choice that is whole: as if its message came in pieces, of which the last one says why it
        ends."""
        message = choice.get("message")
        pieces = list(in_order(message)) if isinstance(message, dict) else [{}]
        unfinished = {**choice, "finish_reason": None}
        told = [event for piece in pieces[:-1] for event in self.add(unfinished, piece)]
        return told + self.add(choice, pieces[-1])

    def end(self) -> list[Event]:
        """What is left when the answer is over."""
        self._pass_on_calls(is_over=True)
        for piece in self._interjections.due(is_over=True):
            self._add(*piece)
        self._finish()
        return self._ready()

    @abstractmethod
    def _tell_said(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        """Thoughts and text of a piece."""

    @abstractmethod
    def _pass_on(self, turn: Turn) -> None:
        """One step of a call."""

    @abstractmethod
    def _note_end(self, choice: dict[str, Any]) -> None:
        """Why the answer ends, if this piece says so."""

    @abstractmethod
    def _finish(self) -> None:
        """Close what is open."""

    def _add(self, choice: dict[str, Any], delta: dict[str, Any]) -> None:
        if self._interjections.ends_call(delta):
            self._pass_on_calls(is_over=True)
        self._tell_said(choice, delta)
        if delta.get("tool_calls"):
            self._calls.add(delta["tool_calls"])
            self._pass_on_calls(is_over=False)
        self._note_end(choice)

    def _pass_on_calls(self, *, is_over: bool) -> None:
        for turn in self._calls.turns(is_over=is_over):
            self._pass_on(turn)

    def _ready(self) -> list[Event]:
        ready, self._events = self._events, []
        return ready
