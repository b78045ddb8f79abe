"""The order in which an answer says what it says, where a message has no place for it. Pure.

A message has its text in one field and its calls in another. Where text follows a call, or a thought follows text, the
message says so in a field of the hub, `order`: how much of which field comes, piece by piece."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

ORDER: Final = "order"
USUAL: Final = ("reasoning_content", "reasoning_details", "content", "tool_calls")
"""Fields of a message in the order in which they are said where it names none."""

Piece = dict[str, Any]
Step = tuple[str, int]
"""A field, and how much of it: characters of text, entries of a list."""


def joined(pieces: Iterable[Piece]) -> Piece:
    """The message of the assistant that says these pieces, each with some of its fields. What neither adds up nor
    belongs to the order, such as `extra_content`, is that of the last piece which has it."""
    message: Piece = {"role": "assistant", "content": None}
    steps: list[Step] = []
    for piece in pieces:
        for name, value in piece.items():
            adds_up = isinstance(value, str | list) and message.get(name)
            message[name] = message[name] + value if adds_up else value
            if name in USUAL:
                steps.append((name, len(value)))
    note_order(message, steps)
    return message


def note_order(message: Piece, steps: Iterable[Step]) -> None:
    """Have a message say in which order its fields were said, if that is not the usual one."""
    noted: list[dict[str, int]] = []
    for name, length in steps:
        if noted and name in noted[-1]:
            noted[-1][name] += length
        elif length:
            noted.append({name: length})
    places = [USUAL.index(next(iter(step))) for step in noted]
    if any(later < earlier for earlier, later in pairwise(places)):
        message[ORDER] = noted


def in_order(message: Piece) -> Iterator[Piece]:
    """A message as the pieces that it was said in, one after another; all of it at once where it names no order, or one
    that is not true of it. What belongs to no order comes with the last piece."""
    steps = _steps(message)
    if not steps:
        yield message
        return
    begun = dict.fromkeys(USUAL, 0)
    rest = {name: value for name, value in message.items() if name not in (*USUAL, ORDER)}
    for position, (name, length) in enumerate(steps, start=1):
        start = begun[name]
        begun[name] += length
        piece = {name: message[name][start : start + length]}
        yield {"role": message.get("role"), "content": None, **piece} | (rest if position == len(steps) else {})


def _steps(message: Piece) -> list[Step]:
    """The order that a message names; [] where that leaves out something of it or has too much: the text was changed
    since, or somebody else's field has this name."""
    noted = message.get(ORDER)
    if not isinstance(noted, list):
        return []
    steps = [next(iter(step.items())) for step in noted if isinstance(step, dict) and len(step) == 1]
    if len(steps) < len(noted) or any(type(length) is not int or length < 1 for _, length in steps):
        return []
    told = dict.fromkeys(USUAL, 0)
    for name, length in steps:
        told[name] = told.get(name, 0) + length
    said = {name: _length(message.get(name)) for name in told}
    return steps if len(told) == len(USUAL) and told == said else []


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list) else 0
