"""What is common to the dialects that put an answer together from pieces of Chat Completions. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from apps.gateway.dialects.chat_pieces import Calls, Interjections, PlainPieces, Turn
from apps.gateway.dialects.order import in_order

Event = dict[str, Any]
Frame = tuple[bytes, bytes]
"""What stands before and after a piece of text in an event."""
Going = tuple[Frame, Callable[[str], None] | None]
"""How a piece of text is told that goes on with what is open, and who takes it."""


class PutTogether(ABC):
    """Makes the events of one answer, in order: `add` for each piece of it, then `end`."""

    def __init__(self, id_of_calls: str) -> None:
        """Calls to which no id was given get one that begins so."""
        self._calls = Calls(id_of_calls)
        self._interjections = Interjections(self._calls)
        self._events: list[Event] = []
        """Those that nobody has taken yet."""
        self._going: dict[bytes, Going] = {}
        """What goes on, by what stands before its pieces; nothing does beyond a piece of something else."""
        self._reason = ""

    def add(self, choice: dict[str, Any], delta: dict[str, Any]) -> list[Event]:
        """The events that a piece of the answer stands for; `delta` may be a whole message."""
        self._going.clear()
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

    def go_on(self, plain: PlainPieces) -> Frame | None:
        """Take pieces that go on with what is open: what stands around each of them in its event. None where they would
        begin something."""
        going = self._going.get(plain.before) or self._begin_to_go_on(plain.before)
        if going is None:
            return None
        frame, take = going
        if take is not None:
            take(plain.text)
        return frame

    def _begin_to_go_on(self, before: bytes) -> Going | None:
        going = self._going_on(before)
        if going is not None:
            self._going[before] = going
        return going

    @abstractmethod
    def _going_on(self, before: bytes) -> Going | None:
        """How pieces are taken and told that stand behind this in their chunks."""

    def _is_of_call(self, before: bytes) -> bool:
        """Whether pieces that stand behind this are arguments of the open call."""
        return not self._interjections.any and self._calls.goes_on(before)

    def end(self) -> list[Event]:
        """What is left when the answer is over."""
        self._going.clear()
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
