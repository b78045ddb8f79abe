"""E39, E40, E41: garbage, false usage and traps in place of an answer. What client, upstream and record say of it."""

import asyncio
import gzip
import logging
import resource
from typing import Any

import orjson
import pytest

from apps.billing.receipts import Rule, receipt_of
from apps.usage.contracts import Outcome, TokenCounts
from tests.gateway.conftest import Bench, Call
from tests.upstream.faulty import DONE, HEAD, FaultyUpstream, chunk, saying
from tests.upstream.test_faults_before_answer import ask, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
GOOD = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9fe "}}]}\n\n'
BEE = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"aus \xf0\x9f\x90\x9d Ulm"}}]}\n\n'
STOP = b'data: {"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
TOLD = b'data: {"id":"a","choices":[],"usage":' + orjson.dumps(USAGE) + b"}\n\n"
WHOLE = (GOOD, BEE, STOP, TOLD, DONE)
NAN = b'data: {"choices":[{"index":NaN,"delta":{}}]}\n\n'
NO_JSON = [b"data: {nonsense\n\n", b"data: NaN\n\n", NAN, b"data: []\n\n"]
BAD_UTF_8 = b'data: {"choices":[{"index":0,"delta":{"content":"\xff\xfe"}}]}\n\n'
DEEP = b'data: {"choices":[],"x":' + b"[" * 900 + b"]" * 900 + b"}\n\n"
LIES = b'data: {"choices":[{"index":0,"delta":{"content":"never"}}],"usage":{"prompt_tokens":9000}}\n\n'
FIRST_USAGE = b'data: {"id":"a","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
TWO_LINES = b'data: {"id":"a","choices":\ndata: [{"index":0,"delta":{"content":"aus \xf0\x9f\x90\x9d Ulm"}}]}\n\n'
SKIPPED: dict[str, tuple[list[bytes], int]] = {
    "lines that are no JSON": ([GOOD, *NO_JSON, BEE, STOP, TOLD, DONE], 4),
    "bad UTF-8": ([GOOD, BAD_UTF_8, BEE, STOP, TOLD, DONE], 1),
    "nesting without end": ([GOOD, DEEP, BEE, STOP, TOLD, DONE], 1),
    "comments and other fields": ([b": hi\n\n", GOOD, b"retry: 5\nid: 7\n\n", BEE, STOP, TOLD, DONE], 0),
    "events after [DONE]": ([*WHOLE, LIES, GOOD], 0),
    "two usages": ([GOOD, FIRST_USAGE, BEE, STOP, TOLD, DONE], 0),
    "an event in two lines": ([GOOD, TWO_LINES, STOP, TOLD, DONE], 0),
    "CRLF": ([event.replace(b"\n", b"\r\n") for event in WHOLE], 0),
    "a byte at a time": ([bytes([byte]) for byte in b"".join(WHOLE)], 0),
    "CRLF, a byte at a time": ([bytes([byte]) for byte in b"".join(WHOLE).replace(b"\n", b"\r\n")], 0),
}
HTML = b"<html><body>504 Gateway Time-out</body></html>"
ENDED: dict[str, list[bytes]] = {
    "HTML": [HTML],
    "an event of 10 MB": [GOOD, b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * (10 << 20)],
    "an error of old vLLM": [GOOD, b'data: {"object":"error","message":"out of memory","code":500}\n\n', DONE],
}
USAGES: dict[str, tuple[object, str]] = {
    "absent": (None, ""),
    "zero": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, "no output tokens told for an answer"),
    "negative": ({**USAGE, "completion_tokens": -2}, "completion_tokens is -2"),
    "huge": ({**USAGE, "prompt_tokens": 10**15, "total_tokens": 10**15 + 2}, "more tokens than the model can have"),
    "absurd": ({**USAGE, "completion_tokens": 2**63}, "completion_tokens has 64 bits"),
    "a float": ({**USAGE, "completion_tokens": 2.0}, "completion_tokens is 2.0"),
    "a string": ({**USAGE, "completion_tokens": "2"}, "completion_tokens is '2'"),
    "null": ({**USAGE, "completion_tokens": None}, "completion_tokens is missing"),
    "parts beyond the total": ({**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}, "a part of the input tokens"),
    "a total that is none": ({**USAGE, "total_tokens": 4}, "do not make the total of 4"),
    "no object": ("5", "usage is no object"),
}


def streamed(*pieces: bytes) -> bytes:
    return HEAD + b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"


def text_of(call: Call) -> str:
    chunks = [event for event in call.events if isinstance(event, dict) and event.get("choices")]
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in chunks)


async def asked(bench: Bench, *pieces: bytes, stream: bool) -> tuple[Call, int]:
    """(call, requests that the upstream saw)."""
    async with FaultyUpstream(saying(*pieces)) as upstream:
        offer(bench, upstream.target())
        return await ask(bench, stream=stream), upstream.requests


@pytest.mark.parametrize("case", SKIPPED)
async def test_e39_garbage_is_passed_over_and_what_is_good_arrives_as_it_was(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    pieces, skipped = SKIPPED[case]
    call, requests = await asked(bench, HEAD, *map(chunk, pieces), b"0\r\n\r\n", stream=True)
    assert (call.status, requests, text_of(call)) == (200, 1, "Grüße aus 🐝 Ulm")
    assert call.events[-1] == "[DONE]" and call.events[-2]["usage"]["total_tokens"] == 5
    assert all(line.startswith(b"data: ") for line in call.body.splitlines() if line)
    assert b"never" not in call.body and b"NaN" not in call.body
    counted = [record.__dict__["events"] for record in caplog.records if "skipped events" in record.message]
    assert counted == ([skipped] if skipped else [])
    end = bench.record(call)
    assert (end.outcome, end.tokens) == (Outcome.COMPLETED, TokenCounts(input=3, output=2))
    assert receipt_of(end, end.opened.price).rule is Rule.REPORTED
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("case", ENDED)
async def test_e39_a_stream_that_makes_no_sense_ends_as_an_error(bench: Bench, empty_store: Any, case: str) -> None:
    pieces = ENDED[case]
    call, requests = await asked(bench, streamed(*pieces), stream=True)
    assert (call.status, requests) == (200, 1)
    assert call.events[-1]["error"]["code"] == "upstream_failed"
    assert b"[DONE]" not in call.body and b"memory" not in call.body and len(call.body) < 2_000
    end = bench.record(call)
    came = pieces[0] == GOOD
    assert (end.outcome, text_of(call)) == (Outcome.FAILED, "Grüße " if came else "")
    assert receipt_of(end, end.opened.price).rule is (Rule.UPSTREAM_BROKE if came else Rule.NOTHING)
    assert end.tokens == (TokenCounts(input=end.opened.input_estimate, output=1) if came else TokenCounts())
    assert await nothing_is_held(bench, empty_store)


NO_ANSWERS = (HTML, b"", b"null", b"[]", b'{"choices":[]}', b'{"choices":[1]}', b"\xff", b"[" * 9_999)


@pytest.mark.parametrize("body", NO_ANSWERS)
async def test_e39_a_whole_answer_that_is_none_is_an_error_and_free(
    bench: Bench, empty_store: Any, body: bytes
) -> None:
    call, requests = await asked(bench, whole(body), stream=False)
    assert (call.status, call.json["error"]["code"], requests) == (502, "upstream_failed", 1)
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos, end.tokens) == (Outcome.FAILED, 0, TokenCounts())
    assert receipt_of(end, end.opened.price).rule is Rule.NOTHING
    assert await nothing_is_held(bench, empty_store)


def whole(body: bytes, *, head: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\n{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("case", USAGES)
async def test_e40_usage_that_cannot_be_is_estimated_and_looked_at(
    bench: Bench, empty_store: Any, case: str, stream: bool
) -> None:
    usage, violation = USAGES[case]
    if stream:
        told = [] if usage is None else [b'data: {"choices":[],"usage":' + orjson.dumps(usage) + b"}\n\n"]
        call, requests = await asked(bench, streamed(GOOD, BEE, STOP, *told, DONE), stream=True)
        assert text_of(call) == "Grüße aus 🐝 Ulm" and call.events[-1] == "[DONE]"
        shown = call.events[-2]["usage"]
    else:
        message = {"role": "assistant", "content": "Grüße aus 🐝 Ulm"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        call, requests = await asked(bench, whole(orjson.dumps({"choices": choices, "usage": usage})), stream=False)
        assert call.json["choices"] == choices
        shown = call.json["usage"]
    assert (call.status, requests) == (200, 1)
    end = bench.record(call)
    estimate = TokenCounts(input=end.opened.input_estimate, output=4 if stream else 5)
    assert (end.outcome, end.tokens) == (Outcome.COMPLETED, TokenCounts() if case == "zero" else estimate)
    assert violation in end.review and bool(end.review) is bool(violation)
    assert shown["cost_details"]["estimated"] is end.estimated is (case != "zero")
    assert shown["total_tokens"] == end.tokens.all_input + end.tokens.all_output
    assert receipt_of(end, end.opened.price).rule is (Rule.REPORTED if case == "zero" else Rule.ESTIMATED_ANSWER)
    assert await nothing_is_held(bench, empty_store)


BOMB = gzip.compress(b"\0" * (50 << 20))


@pytest.mark.parametrize("stream", [True, False])
async def test_e41_what_is_compressed_though_nobody_asked_is_no_answer(
    bench: Bench, empty_store: Any, stream: bool
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call, requests = await asked(bench, whole(BOMB, head="content-encoding: gzip\r\n"), stream=stream)
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert (error["code"], requests) == ("upstream_failed", 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos) == (Outcome.FAILED, 0)
    assert receipt_of(end, end.opened.price).rule is Rule.NOTHING
    assert await nothing_is_held(bench, empty_store)


async def test_e41_headers_without_end_are_refused(bench: Bench, empty_store: Any) -> None:
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(100_000))
    call, requests = await asked(bench, b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n", stream=False)
    assert (call.status, call.json["error"]["code"], requests) == (502, "upstream_failed", 1)
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos) == (Outcome.FAILED, 0)
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_e41_a_redirect_is_never_followed(
    bench: Bench, empty_store: Any, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    visits: list[asyncio.StreamWriter] = []
    trap = await asyncio.start_server(lambda _, writer: visits.append(writer), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/latest/meta-data/"
    answer = f"HTTP/1.1 {status} Go\r\nlocation: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    call, requests = await asked(bench, answer.encode(), stream=False)
    trap.close()
    assert (call.status, call.json["error"]["code"], requests) == (502, "upstream_misconfigured", 1)
    assert visits == [] and "meta-data" not in str(call.sent) + caplog.text
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos) == (Outcome.FAILED, 0)
    assert await nothing_is_held(bench, empty_store)
