"""Pieces of Chat Completions answers, as all vendors say them, for the dialects that are made of them. Pure.

Vendors differ: thoughts under two names or both, content as a list, calls without an index, with one index for all,
with their id in every piece, whole or cut anywhere."""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from apps.gateway.dialects.vendor_json import NUMBER, STRING, read_json, text_of, write_json

_HEAD: Final = re.compile(rb'data: \{[^\[]*"choices":')
_TAIL: Final = re.compile(
    rb'(\[\{"index":0,"delta":\{"(?:content|reasoning_content|(tool_calls":\[\{"index":%b,"function":\{"arguments))":)(?!"")(%b)'
    rb'(?(2)\}\}\])\}(?:,"logprobs":null)?,"finish_reason":null\}\](?:,"usage":null)?(?:,"obfuscation":"\w*")?\}\n\n'
    % (NUMBER, STRING)
)
TEXT: Final = b'[{"index":0,"delta":{"content":'
THOUGHT: Final = b'[{"index":0,"delta":{"reasoning_content":'
_ARGUMENTS: Final = b'[{"index":0,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":'
_SAID: Final = frozenset(("content", "refusal", "reasoning", "reasoning_content", "reasoning_details"))
Piece = tuple[dict[str, Any], dict[str, Any]]
"""A choice of a chunk, and its delta."""


class PlainPieces:
    """Reads those blocks of our own chat stream that are chunks with a piece of the same text each, and nothing else:
    the common ones, which need no parser. One a stream."""

    def __init__(self) -> None:
        self.head = b""
        """What such chunks begin with."""
        self.before = b""
        """What stands before each piece in the choices of its chunk: `TEXT`, `THOUGHT`, or the begin of a call's."""
        self.literals: list[bytes] = []
        """The pieces as they stand in JSON."""
        self.text = ""
        """All that they say."""
        self._start = self._end = b""
        """Around the piece of the last block that was one chunk."""

    def read(self, block: bytes) -> bool:
        """Whether the block is one of these. Then the others tell of it, until the next."""
        start, end = self._start, self._end
        if start and block.startswith(start) and block.endswith(end):
            literal = block[len(start) : len(block) - len(end)]
            if text := text_of(literal):
                self.literals, self.text = [literal], text
                return True
        self._start = b""
        if not self.head or not block.startswith(self.head):
            found = _HEAD.match(block)
            if found is None:
                return False
            self.head = found.group()
        return self._read_chunks(block)

    def _read_chunks(self, block: bytes) -> bool:
        at, self.literals, self.text = 0, [], ""
        while block.startswith(self.head, at):
            tail = _TAIL.match(block, at + len(self.head))
            if tail is None or (self.literals and tail.group(1) != self.before):
                return False
            self.before, _, literal = tail.groups()
            if (text := text_of(literal)) is None:
                return False
            self.literals.append(literal)
            self.text += text
            at = tail.end()
            if at == len(block) and len(self.literals) == 1:
                self._start, self._end = block[: tail.start(3)], block[tail.end(3) :]
        return bool(self.literals) and at == len(block)


def thought_in(delta: dict[str, Any]) -> str:
    """The piece of a thought that a delta or message brings; vLLM says the same one under two names."""
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(thought, str):
        return thought
    content = delta.get("content")
    if not isinstance(content, list):  # Mistral's
        return ""
    inner = (part.get("thinking") for part in content if isinstance(part, dict) and part.get("type") == "thinking")
    return "".join(text_in({"content": each}) if isinstance(each, list) else str(each or "") for each in inner)


def text_in(delta: dict[str, Any]) -> str:
    """The piece of text that a delta or message brings."""
    content = delta.get("content")
    if isinstance(content, list):
        texts = (part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text")
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


class Call:
    """A call that is being made: what came of it, and how much of that was passed on."""

    __slots__ = ("arguments", "extra", "id", "index", "is_begun", "is_custom", "is_ended", "name", "passed")

    def __init__(self, index: object, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments = ""
        self.extra: dict[str, Any] | None = None
        self.passed = 0
        """Characters of its arguments."""
        self.is_custom = False
        """Its arguments are a text, as custom tools of Chat Completions have it."""
        self.is_begun = False
        self.is_ended = False

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are a JSON document: then nothing more of it is to come. Nobody can tell of a text."""
        if self.is_custom:
            return False
        try:
            read_json(self.arguments.encode("utf-8", "surrogatepass"))
        except ValueError:
            return False
        return True


class Calls:
    """The calls of one answer, in their order. Dialects in which one block follows another get them one by one."""

    def __init__(self, id_for: str) -> None:
        """`id_for` begins the ids of calls whose vendor gives none."""
        self._id_for = id_for
        self._all: list[Call] = []
        self._current = 0

    @property
    def any(self) -> bool:
        """Whether there was a call."""
        return bool(self._all)

    @property
    def open(self) -> Call | None:
        """The call that was begun and not ended."""
        call = self._all[self._current] if self._current < len(self._all) else None
        return call if call is not None and call.is_begun else None

    def add(self, pieces: object) -> None:
        """The `tool_calls` of a delta or message."""
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                self._add(piece)

    def _add(self, piece: dict[str, Any]) -> None:
        is_custom = isinstance(piece.get("custom"), dict)
        function = piece["custom"] if is_custom else piece.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name"), function.get("input" if is_custom else "arguments")
        call = self._call(piece, begins=isinstance(name, str) and bool(name))
        call.is_custom = call.is_custom or is_custom
        if isinstance(name, str) and name and not call.name:
            call.name = name
        if isinstance(arguments, dict):  # Ollama's, in some versions
            arguments = _written(arguments)
        if isinstance(arguments, str):
            call.arguments += arguments
        if isinstance(piece.get("extra_content"), dict):
            call.extra = piece["extra_content"]

    def _call(self, piece: dict[str, Any], *, begins: bool) -> Call:
        index, call_id = piece.get("index"), piece.get("id")
        call_id = call_id if isinstance(call_id, str) else ""
        for call in reversed(self._all):
            is_same = call.index == index if index is not None else not begins or call.id == call_id
            if is_same and not (begins and call_id and call.name and call.id != call_id):
                return call
        made = Call(index, call_id or f"{self._id_for}{len(self._all)}")
        self._all.append(made)
        return made

    def goes_on(self, before: bytes) -> bool:
        """Whether pieces of arguments that stand behind this go on with the open call, and no other was named yet."""
        call = self.open
        if call is None or call is not self._all[-1] or call.is_custom or type(call.index) is not int:
            return False
        return before == _ARGUMENTS % call.index

    def take(self, piece: str) -> None:
        """More of the open call's arguments, which are passed on at once."""
        call = self._all[self._current]
        call.arguments += piece
        call.passed = len(call.arguments)

    def turns(self, *, is_over: bool) -> "Iterator[Turn]":
        """What can be passed on now, in order: a call begins when the one before it has ended."""
        while self._current < len(self._all):
            call = self._all[self._current]
            if not call.name:  # none, if its name never comes
                if not is_over:
                    return
                self._current += 1
                continue
            if not call.is_begun:
                call.is_begun = True
                yield Turn(call, begins=True)
            if call.passed < len(call.arguments):
                piece, call.passed = call.arguments[call.passed :], len(call.arguments)
                yield Turn(call, piece=piece)
            is_last = self._current == len(self._all) - 1
            if not is_over and (is_last or not call.is_whole):
                return
            call.is_ended = True
            self._current += 1
            yield Turn(call, ends=True)


class Interjections:
    """What an answer says while the arguments of a call are still coming: it waits until they are whole, because one
    block follows another."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._waiting: list[Piece] = []

    def put_off(self, choice: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
        """What of a delta need not wait."""
        call, said = self._calls.open, {name for name in _SAID if delta.get(name)}
        if not said or call is None or (not self._waiting and call.is_whole):
            return delta
        self._waiting.append(({**choice, "finish_reason": None}, {name: delta[name] for name in said}))
        return {name: value for name, value in delta.items() if name not in said}

    def ends_call(self, delta: dict[str, Any]) -> bool:
        """Whether the open call is over because something else is said, which need not wait."""
        return self._calls.open is not None and any(delta.get(name) for name in _SAID)

    @property
    def any(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def due(self, *, is_over: bool = False) -> list[Piece]:
        """What waited and can be said now, in its order."""
        call = self._calls.open
        if not self._waiting or (call is not None and not call.is_whole and not is_over):
            return []
        due, self._waiting = self._waiting, []
        return due


class Turn(NamedTuple):
    """One step of a call."""

    call: Call
    piece: str = ""
    begins: bool = False
    ends: bool = False


def _written(arguments: dict[str, Any]) -> str:
    return write_json(arguments).decode()
