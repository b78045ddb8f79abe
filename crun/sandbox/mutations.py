"""How faults bend a reply: pure functions over the steps of a stream, or over the step of a whole answer."""

import gzip
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import NamedTuple

import orjson

from crun.sandbox.answers import Usage
from crun.sandbox.rendering import NULL_USAGE, STREAM_ERROR, usage_object
from crun.sandbox.steps import Act, Step

Steps = Iterator[Step]


class Setting(NamedTuple):
    """What a fault may know: the number in its model's name, the true usage, and how its dialect says things."""

    number: int
    usage: Usage
    late: tuple[bytes, ...]
    """Events that have no place behind the last one."""
    failure: Callable[[int], bytes]
    """The event that tells of an error, after so many others."""


GARBAGE = b'data: {"id": "chatcmpl-garbage", "choices": [{"ind\n\n'
BAD_UTF8 = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe\xc3"},"finish_reason":null}]}\n\n'
_TEXT = re.compile(rb'"(content|text)":"')
BIG_LINE_BYTES = 10_000_000
BOMB_BYTES = 32 * 1024 * 1024


def stop_after(steps: Steps, chunks: int, last: Callable[[int], Step]) -> Steps:
    """The stream up to its `chunks`th chunk, then `last`, made of the number of events before it; a stream with fewer
    chunks stays whole."""
    sent = 0
    for step in steps:
        if step.act is not Act.CHUNK:
            yield step
            sent += 1
            continue
        if chunks > 0:
            yield step
            sent += 1
        if chunks <= 1:
            yield last(sent)
            return
        chunks -= 1


def cut_after(steps: Steps, setting: Setting) -> Steps:
    return stop_after(steps, setting.number, lambda _: Step(act=Act.CUT))


def reset_after(steps: Steps, setting: Setting) -> Steps:
    return stop_after(steps, setting.number, lambda _: Step(act=Act.RESET))


def stall_after(steps: Steps, setting: Setting) -> Steps:
    return stop_after(steps, setting.number, lambda _: Step(act=Act.STALL))


def fail_after(steps: Steps, setting: Setting) -> Steps:
    return stop_after(steps, setting.number, lambda sent: Step(setting.failure(sent), Act.FAIL))


def insert_after_first_chunk(steps: Steps, event: bytes) -> Steps:
    """`event` once, behind the first chunk or, in a stream without one, in front of the last event."""
    inserted = False
    for step in steps:
        if step.act is Act.END and not inserted:
            yield Step(event)
        yield step
        if step.act is Act.CHUNK and not inserted:
            inserted = True
            yield Step(event)


def garbage(steps: Steps, _: Setting) -> Steps:
    return insert_after_first_chunk(steps, GARBAGE)


def bad_utf8(steps: Steps, _: Setting) -> Steps:
    return insert_after_first_chunk(steps, BAD_UTF8)


def big_line(steps: Steps, _: Setting) -> Steps:
    padding = b"x" * BIG_LINE_BYTES
    return insert_after_first_chunk(steps, b'data: {"choices":[],"padding":"' + padding + b'"}\n\n')


def no_done(steps: Steps, _: Setting) -> Steps:
    return (step for step in steps if step.act is not Act.END)


def events_after_done(steps: Steps, setting: Setting) -> Steps:
    yield from steps
    yield from map(Step, setting.late)


def crlf(steps: Steps, _: Setting) -> Steps:
    return (step._replace(payload=step.payload.replace(b"\n", b"\r\n")) for step in steps)


def comments(steps: Steps, _: Setting) -> Steps:
    yield Step(b": the sandbox thinks\n\n\n")
    for step in steps:
        yield step._replace(payload=b": keep-alive\n\n" + step.payload)


def torn(steps: Steps, _: Setting) -> Steps:
    """Each event in slices of 1 to 3 bytes, splitting characters and line ends; the last slice acts."""
    sizes = cycle((1, 2, 3))
    for step in steps:
        rest, pause_s = step.payload, step.pause_s
        while len(rest) > (size := next(sizes)):
            yield Step(rest[:size], pause_s=pause_s)
            rest, pause_s = rest[size:], 0.0
        yield step._replace(payload=rest, pause_s=pause_s)


def torn_crlf(steps: Steps, setting: Setting) -> Steps:
    return torn(crlf(steps, setting), setting)


def usage_every_chunk(steps: Steps, setting: Setting) -> Steps:
    """Where usage was asked for, each chunk reports the completion so far."""
    completion = 0
    for step in steps:
        completion += step.tokens
        if step.act is not Act.CHUNK or NULL_USAGE not in step.payload:
            yield step
            continue
        so_far = usage_object(replace(setting.usage, completion_tokens=completion, reasoning_tokens=0))
        told = b',"usage":' + orjson.dumps(so_far) + b"}"
        yield step._replace(payload=step.payload.replace(NULL_USAGE, told), carries_usage=True)


def gzip_bomb(steps: Steps, _: Setting) -> Steps:
    """The whole stream compressed, behind a comment of BOMB_BYTES."""
    taken = list(steps)
    bomb = _bomb(b": ", b"\n\n" + b"".join(step.payload for step in taken))
    yield Step(bomb, tokens=sum(step.tokens for step in taken), carries_usage=any(s.carries_usage for s in taken))


def _bomb(start: bytes, end: bytes) -> bytes:
    return gzip.compress(start + b" " * BOMB_BYTES + end, compresslevel=1)


# Of a whole answer: the content-length to announce, and the steps that replace the one of the body.
Reshaped = tuple[int, tuple[Step, ...]]


def _half(body: Step, act: Act) -> Reshaped:
    return len(body.payload), (Step(body.payload[: len(body.payload) // 2], act),)


def cut_body(body: Step) -> Reshaped:
    return _half(body, Act.CUT)


def reset_body(body: Step) -> Reshaped:
    return _half(body, Act.RESET)


def stall_body(body: Step) -> Reshaped:
    return _half(body, Act.STALL)


def short_body(body: Step) -> Reshaped:
    """All of the body, but 100 bytes fewer than announced."""
    return len(body.payload) + 100, (body._replace(act=Act.CUT),)


def broken_json(body: Step) -> Reshaped:
    return _instead(body, body.payload[:-20])


def bad_utf8_body(body: Step) -> Reshaped:
    return _instead(body, _TEXT.sub(rb"\g<0>" + b"\xff\xfe\xc3", body.payload, count=1))


def big_line_body(body: Step) -> Reshaped:
    return _instead(body, b'{"padding":"' + b"x" * BIG_LINE_BYTES + b'",' + body.payload[1:])


def gzip_bomb_body(body: Step) -> Reshaped:
    return _instead(body, _bomb(b"", body.payload))


def error_body(_body: Step) -> Reshaped:
    payload = orjson.dumps({"error": STREAM_ERROR})
    return len(payload), (Step(payload, Act.FAIL),)


def _instead(body: Step, payload: bytes) -> Reshaped:
    return len(payload), (body._replace(payload=payload),)
