"""POST /chat/completions end to end: the client's view, the upstream's and the record's, together."""

import asyncio
import base64
import socket
from collections import Counter
from typing import Any

import msgspec
import pytest

from apps.gateway.server import deadline
from apps.usage.contracts import Outcome, RequestOpened, TokenCounts
from tests.factories import offered, snapshot
from tests.gateway.conftest import UPSTREAM_KEY, Bench

pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"


async def test_an_answer_has_our_names_its_usage_and_its_cost(bench: Bench) -> None:
    call = await bench.chat("base", "one two three")
    answer = call.json
    assert call.status == 200
    assert answer["choices"][0]["message"]["content"] == "one two three"
    assert (answer["model"], answer["object"]) == ("base", "chat.completion")
    assert answer["usage"]["total_tokens"] == 6
    assert answer["usage"]["cost"] == pytest.approx(3 * 150e-9 + 3 * 600e-9)
    assert call.headers["x-crun-cost"] == "0.000002250"
    assert call.headers["x-request-id"].startswith("req_")
    assert answer["id"] == "chatcmpl-" + call.request_id.removeprefix("req_")
    assert "sandbox" not in call.body.decode()


async def test_the_record_equals_what_the_upstream_did(bench: Bench) -> None:
    call = await bench.chat("base", "a b c d", sandbox={"cached_tokens": 3, "reasoning_tokens": 1})
    truth = await bench.truth_of(call)
    record = bench.record(call)
    assert record.tokens == TokenCounts(input=1, cache_read=3, output=truth.completion_tokens - 1, reasoning=1)
    assert record.cost_nanos == 150 + 3 * 75 + truth.completion_tokens * 600
    assert (record.outcome, record.estimated, record.http_status) == (Outcome.COMPLETED, False, 200)


async def test_the_intent_is_written_before_the_upstream_is_called(bench: Bench) -> None:
    call = bench.start(CHAT, bench.chat_body("sandbox-fault-stall"))
    await asyncio.sleep(0.2)
    assert [type(entry) for entry in bench.journal()] == [RequestOpened]
    call.leave()
    assert call.task is not None
    await call.task


async def test_a_stream_ends_with_usage_in_its_own_chunk_and_done(bench: Bench) -> None:
    call = await bench.chat("base", "one two three", stream=True)
    *chunks, last, done = call.events
    assert call.headers["content-type"].startswith("text/event-stream")
    assert done == "[DONE]"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 3
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "one two three"
    assert {chunk["model"] for chunk in chunks} == {"base"}
    assert bench.record(call).tokens == TokenCounts(input=3, output=3)


async def test_an_unknown_model_is_404_and_costs_nothing(bench: Bench) -> None:
    call = await bench.call(CHAT, {"model": "nobody", "messages": [{"role": "user", "content": "x"}]})
    assert (call.status, call.json["error"]["code"]) == (404, "model_not_found")
    assert call.json["error"]["type"] == "invalid_request_error"
    assert bench.journal() == [] and bench.truth() == {}


async def test_a_model_without_a_price_is_refused(bench: Bench) -> None:
    bench.runtime.catalog.snapshot = snapshot(offered(id="free", targets=bench.models["base"].targets, prices=()))
    call = await bench.chat("free")
    assert (call.status, call.json["error"]["code"]) == (503, "model_not_priced")
    assert bench.truth() == {}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer ak_x"},
        {"x-api-key": "' OR 1=1 --"},
        {"authorization": "Basic Zm9v"},
    ],
)
async def test_without_a_valid_key_the_answer_is_401(bench: Bench, headers: dict[str, str]) -> None:
    call = await bench.call(CHAT, {"model": "base"}, headers=headers)
    assert (call.status, call.json["error"]["code"]) == (401, "invalid_api_key")


async def test_x_api_key_works_and_two_different_keys_do_not(bench: Bench) -> None:
    assert (await bench.call("/api/v1/key", headers={"x-api-key": bench.key})).status == 200
    both = {"x-api-key": bench.key, "authorization": f"Bearer {bench.key}"}
    assert (await bench.call("/api/v1/key", headers=both)).status == 200
    call = await bench.call("/api/v1/key", headers={**both, "authorization": "Bearer ak_other"})
    assert call.status == 400


async def test_an_image_reaches_a_vision_model(bench: Bench) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + b"0" * 60).decode()
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": url}}]
    bench.offer("sandbox-vision")
    call = await bench.call(CHAT, {"model": "sandbox-vision", "messages": [{"role": "user", "content": parts}]})
    assert "image/png" in call.json["choices"][0]["message"]["content"]


async def test_a_body_of_text_alone_has_a_smaller_limit_than_one_with_media(bench: Bench) -> None:
    call = await bench.chat("base", "x" * (2 << 20))
    assert (call.status, call.json["error"]["code"]) == (413, "request_too_large")
    assert (await bench.call(CHAT, b"x" * (20 << 20) + b"y")).status == 413
    assert (await bench.call(CHAT, b"{}", headers={"content-encoding": "gzip"})).status == 415


async def test_output_is_capped_at_the_models_limit_not_refused(bench: Bench) -> None:
    call = await bench.chat("base", "word " * 150, max_tokens=5_000)
    assert call.json["usage"]["completion_tokens"] == 100
    assert call.json["choices"][0]["finish_reason"] == "length"


async def test_a_client_that_leaves_midway_cuts_the_upstream_and_pays_for_what_came(bench: Bench) -> None:
    body = bench.chat_body("base", "hello " * 50, stream=True, sandbox={"chunk_delay_ms": 20})
    call = bench.start(CHAT, body)
    await call.until(lambda seen: len(seen.events) >= 6)
    call.leave()
    assert call.task is not None
    await call.task
    record = bench.record(call)
    truth = await bench.truth_of(call)
    assert (record.outcome, record.estimated, record.error_code) == (Outcome.CANCELLED, True, "client_closed")
    assert truth.outcome == "client_gone"
    assert 4 <= record.tokens.output <= truth.completion_tokens < 50
    assert record.tokens.input > 0
    assert bench.runtime.transport.open_connections == 0


async def test_a_client_that_is_cut_while_it_reads_slowly_pays_for_what_was_sent(bench: Bench) -> None:
    """The cancellation arrives in `send`, not while waiting for the upstream."""
    sent: list[dict[str, Any]] = []
    blocked = asyncio.Event()
    raw = msgspec.json.encode(bench.chat_body("base", "hello " * 20, stream=True))
    requests = iter([{"type": "http.request", "body": raw, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(requests, None)
        if message is None:
            await blocked.wait()
            return {"type": "http.disconnect"}
        return message

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and message["body"]:
            blocked.set()
            await asyncio.Event().wait()

    headers = [(b"authorization", f"Bearer {bench.key}".encode())]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "client": None}
    async with asyncio.timeout(10):
        await bench.app(scope, receive, send)
    (record,) = [entry for entry in bench.journal() if hasattr(entry, "outcome")]
    assert (record.outcome, record.estimated) == (Outcome.CANCELLED, True)
    assert record.tokens.output > 0


async def test_a_client_that_leaves_before_the_answer_cancels_the_upstream(bench: Bench) -> None:
    call = bench.start(CHAT, bench.chat_body("sandbox-fault-stall"))
    await asyncio.sleep(0.1)
    call.leave()
    assert call.task is not None
    await call.task
    (record,) = [entry for entry in bench.journal() if hasattr(entry, "outcome")]
    assert record.outcome is Outcome.CANCELLED
    assert bench.runtime.transport.open_connections == 0


async def test_a_client_that_leaves_before_any_upstream_got_the_request_pays_nothing(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        target = msgspec.structs.replace(bench.target("sandbox-echo"), base_url=url)
        bench.runtime.catalog.snapshot = snapshot(offered(id="full", targets=(target,)))
        call = bench.start(CHAT, bench.chat_body("full"))
        await asyncio.sleep(0.3)
        call.leave()
        assert call.task is not None
        await call.task
        for filler in fillers:
            filler.close()
    (record,) = [entry for entry in bench.journal() if hasattr(entry, "outcome")]
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.CANCELLED, 0, TokenCounts())


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("sandbox-fault-401", 502, "upstream_unauthorized"),
        ("sandbox-fault-403", 502, "upstream_unauthorized"),
        ("sandbox-fault-404", 502, "upstream_misconfigured"),
        ("sandbox-fault-413", 413, "request_too_large"),
        ("sandbox-fault-429", 503, "upstream_overloaded"),
        ("sandbox-fault-500", 502, "upstream_failed"),
        ("sandbox-fault-503", 503, "upstream_overloaded"),
        ("sandbox-fault-529", 503, "upstream_overloaded"),
        ("sandbox-fault-refuse", 502, "upstream_failed"),
        ("sandbox-fault-redirect", 502, "upstream_misconfigured"),
        ("sandbox-fault-html", 502, "upstream_failed"),
        ("sandbox-fault-bad-json", 502, "upstream_failed"),
        ("sandbox-fault-short-body", 502, "upstream_failed"),
    ],
)
async def test_an_upstream_that_fails_is_our_error_costs_nothing_and_leaks_nothing(
    bench: Bench, model: str, status: int, code: str
) -> None:
    call = await bench.chat(model)
    assert (call.status, call.json["error"]["code"]) == (status, code)
    assert UPSTREAM_KEY.encode() not in call.body and b"127.0.0.1" not in call.body
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos, record.tokens) == (Outcome.FAILED, 0, TokenCounts())
    if status == 503:
        assert int(call.headers["retry-after"]) >= 1


async def test_a_bad_request_upstream_is_a_bad_request_here(bench: Bench) -> None:
    call = await bench.chat("sandbox-fault-400")
    assert (call.status, call.json["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "model", ["sandbox-fault-cut-3", "sandbox-fault-reset-3", "sandbox-fault-error-event-3", "sandbox-fault-big-line"]
)
async def test_a_stream_that_breaks_ends_as_an_error_and_bills_what_came(bench: Bench, model: str) -> None:
    call = await bench.chat(model, "one two three four five six", stream=True)
    assert call.status == 200
    assert call.events[-1]["error"]["type"] == "upstream_error"
    assert b"[DONE]" not in call.body
    record = bench.record(call)
    truth = await bench.truth_of(call)
    delivered = [c for c in call.events[:-1] if c["choices"][0]["delta"].get("content")]
    assert record.outcome is Outcome.FAILED
    assert record.tokens.output == len(delivered) <= truth.completion_tokens
    assert record.estimated == (len(delivered) > 0)
    assert record.tokens.input == (record.opened.input_estimate if delivered else 0)
    if model.endswith("-3"):
        assert len(delivered) == 3


@pytest.mark.parametrize(
    "model",
    ["no-usage", "negative-usage", "float-usage", "string-usage", "null-usage", "huge-usage", "cached-over-prompt"],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_usage_that_is_missing_or_wrong_is_estimated_and_said_so(bench: Bench, model: str, stream: bool) -> None:
    call = await bench.chat(f"sandbox-fault-{model}", "one two three", stream=stream)
    record = bench.record(call)
    assert (call.status, record.outcome, record.estimated) == (200, Outcome.COMPLETED, True)
    assert 0 < record.tokens.output <= 4 and 0 < record.tokens.input <= 4
    usage = call.events[-2]["usage"] if stream else call.json["usage"]
    assert usage["cost_details"] == {"estimated": True}


@pytest.mark.parametrize(
    "model", ["torn", "crlf", "comments", "garbage", "usage-every-chunk", "usage-twice", "events-after-done", "no-done"]
)
async def test_an_odd_but_whole_stream_arrives_whole_and_is_billed_exactly(bench: Bench, model: str) -> None:
    call = await bench.chat(f"sandbox-fault-{model}", "één twee 🙂 vier", stream=True)
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in call.events[:-2])
    assert text == "één twee 🙂 vier"
    assert call.events[-1] == "[DONE]"
    truth = await bench.truth_of(call)
    record = bench.record(call)
    assert (record.tokens.input, record.tokens.output) == (truth.prompt_tokens, truth.completion_tokens)
    assert not record.estimated


async def test_an_upstream_that_never_answers_is_504(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [0.3, 60.0, 600.0, 30.0])
    call = await bench.chat("sandbox-fault-stall", stream=True)
    assert (call.status, call.json["error"]["code"]) == (504, "upstream_timeout")
    assert bench.record(call).cost_nanos == 0


async def test_an_upstream_that_stops_midway_is_cut_at_its_bound(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [60.0, 0.3, 600.0, 30.0])
    call = await bench.chat("sandbox-fault-stall-after-3", "one two three four five", stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_timeout"
    record = bench.record(call)
    assert (record.outcome, record.tokens.output) == (Outcome.FAILED, 3)
    assert bench.runtime.transport.open_connections == 0


async def test_another_route_answers_when_the_first_cannot_have_charged(bench: Bench) -> None:
    dead = msgspec.structs.replace(
        bench.target("sandbox-echo"), provider="dead", base_url="http://127.0.0.1:9/v1", weight=1000
    )
    alive = msgspec.structs.replace(bench.target("sandbox-echo"), provider="alive")
    bench.runtime.catalog.snapshot = snapshot(offered(id="two", targets=(dead, alive)))
    for _ in range(5):
        call = await bench.chat("two")
        assert call.status == 200
        assert bench.record(call).opened.provider == "alive"


async def test_a_full_journal_refuses_new_work_before_any_upstream_call(bench: Bench) -> None:
    bench.runtime.journal._max_bytes = 0
    call = await bench.chat("base")
    assert (call.status, call.json["error"]["code"]) == (503, "store_unavailable")
    assert bench.truth() == {}


@pytest.mark.parametrize("how", ["leaves", "is cancelled natively"])
async def test_many_aborts_at_random_moments_leak_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("apps.gateway.server.disconnect.WATCH_AFTER_S", 0)
    scripts = [{"first_byte_delay_ms": 15}, {"chunk_delay_ms": 2}, {"first_byte_delay_ms": 5, "chunk_delay_ms": 1}]
    bodies = [bench.chat_body("base", "hello " * 20, stream=number != 2, sandbox=s) for number, s in enumerate(scripts)]
    ends: Counter[str] = Counter()

    async def abort_after(number: int) -> None:
        call = bench.start(CHAT, bodies[number % len(bodies)])
        await asyncio.sleep(0.0004 * (number % 150))
        assert call.task is not None
        if number % 5 == 0:
            pass  # this one stays to the end
        elif how == "leaves":
            call.leave()
        else:
            call.task.cancel()
        await asyncio.wait([call.task])
        last = call.sent[-1] if call.sent else {}
        is_whole = last.get("type") == "http.response.body" and not last.get("more_body")
        ends["whole" if is_whole else "part" if last else "no answer"] += 1

    for batch in range(10):
        await asyncio.gather(*(abort_after(45 * batch + number) for number in range(45)))
    assert set(ends) >= {"no answer", "whole"}
    assert bench.runtime.transport.open_connections == 0
    assert bench.runtime.journal.open_requests == 0
    closes = [entry.opened.request_id for entry in bench.journal() if hasattr(entry, "outcome")]
    opens = [entry.request_id for entry in bench.journal() if isinstance(entry, RequestOpened)]
    assert sorted(closes) == sorted(opens)
    assert len(set(closes)) == len(closes) > 100
    assert (await bench.chat("base")).status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_gateway_that_stops_says_so_and_does_not_blame_the_client(bench: Bench, stream: bool) -> None:
    script = {"chunk_delay_ms": 20} if stream else {"first_byte_delay_ms": 5_000}
    call = bench.start(CHAT, bench.chat_body("base", "hello " * 50, stream=stream, sandbox=script))
    if stream:
        await call.until(lambda seen: len(seen.events) >= 4)
    else:
        await asyncio.sleep(0.1)
    assert call.task is not None
    call.task.cancel("Task cancelled, timeout graceful shutdown exceeded")
    await asyncio.wait([call.task])
    error = call.events[-1]["error"] if stream else call.json["error"]
    assert error["code"] == "gateway_stopping"
    record = bench.record(call)
    assert (record.outcome, record.error_code) == (Outcome.INTERRUPTED, "gateway_stopping")
    assert (record.tokens.output > 0) == stream


async def test_a_large_body_is_read_for_known_keys_only(bench: Bench) -> None:
    large = {"content-length": str(1 << 20)}
    call = await bench.call(CHAT, b"x" * 100, headers={**large, "authorization": "Bearer ak_nobody"})
    assert (call.status, call.json["error"]["code"]) == (401, "invalid_api_key")
    call = await bench.call(CHAT, b"x" * 100, headers={**large, "authorization": f"Bearer {bench.key}"})
    assert call.status == 400


async def test_a_body_that_never_arrives_is_408(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.server.asgi.CLIENT_BODY_TIMEOUT_S", 0.1)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {bench.key}".encode())]
    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": headers, "client": None}
    await bench.app(scope, receive, send)
    assert sent[0]["status"] == 408


class VendorPort:
    """A vendor's side of a connection, written out byte by byte."""

    def __init__(self, answer: bytes, *, then_wait: bool = False) -> None:
        self.answer, self.then_wait = answer, then_wait

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(self.answer)
        await writer.drain()
        if self.then_wait:
            await reader.read()
        writer.close()


def chunked(*events: bytes, end: bool = True) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events) + (b"0\r\n\r\n" if end else b"")


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def answer_of(bench: Bench, vendor: VendorPort, **fields: Any) -> Any:
    """What the client gets when the vendor answers so."""
    server = await asyncio.start_server(vendor, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    target = msgspec.structs.replace(bench.target("gpt-x"), base_url=url)
    bench.runtime.catalog.snapshot = snapshot(offered(id="vendor", targets=(target,)))
    call = await bench.chat("vendor", **fields)
    server.close()
    return call


TEXT = b'data: {"id":"a","model":"gpt-x","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STOP = b'data: {"id":"a","model":"gpt-x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"a","model":"gpt-x","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
DONE = b"data: [DONE]\n\n"


async def test_an_upstream_that_stays_open_after_done_keeps_nobody_waiting(bench: Bench) -> None:
    vendor = VendorPort(chunked(TEXT, STOP, USAGE, DONE, end=False), then_wait=True)
    call = await answer_of(bench, vendor, stream=True)
    assert call.events[-1] == "[DONE]"
    record = bench.record(call)
    assert (record.outcome, record.duration_ms < 2_000) == (Outcome.COMPLETED, True)
    assert bench.runtime.transport.open_connections == 0


async def test_half_an_emoji_in_a_whole_answer_is_delivered_and_billed(bench: Bench) -> None:
    body = (
        b'{"id":"a","object":"chat.completion","model":"gpt-x","provider":"SecretVendor","choices":[{"index":0,"message":'
        b'{"role":"assistant","content":"hi \\ud83d"},"finish_reason":"length"}],'
        b'"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    )
    call = await answer_of(bench, VendorPort(whole(body)))
    assert call.status == 200
    assert b"hi \\ud83d" in call.body and b"SecretVendor" not in call.body
    assert bench.record(call).tokens == TokenCounts(input=5, output=2)


async def test_tool_calls_without_usage_are_estimated_by_their_size(bench: Bench) -> None:
    arguments = b"x" * 400
    body = (
        b'{"choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",'
        b'"function":{"name":"f","arguments":"' + arguments + b'"}}]},"finish_reason":"tool_calls"}]}'
    )
    call = await answer_of(bench, VendorPort(whole(body)))
    record = bench.record(call)
    assert record.estimated and 100 <= record.tokens.output < 140


async def test_a_strange_retry_after_is_only_ignored(bench: Bench) -> None:
    answer = b"HTTP/1.1 429 Too Many\r\nretry-after: " + b"9" * 5_000 + b"\r\ncontent-length: 0\r\n\r\n"
    call = await answer_of(bench, VendorPort(answer))
    assert (call.status, call.headers["retry-after"]) == (503, "1")
    assert bench.record(call).cost_nanos == 0


async def test_a_bug_while_relaying_is_an_event_and_a_failed_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise KeyError("secret detail")

    monkeypatch.setattr("apps.gateway.dialects.chat_stream.ChatStream.feed", broken)
    call = await bench.chat("base", stream=True)
    assert call.events[-1]["error"]["code"] == "internal_error"
    assert b"secret" not in call.body
    assert bench.record(call).outcome is Outcome.FAILED
