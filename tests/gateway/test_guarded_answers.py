"""Guardrails of answers: whole ones before anything is sent, streams on their way, however the upstream cuts them."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.sse import event_data, events
from apps.gateway.guardrails.streaming import StreamGuard
from apps.policies.compiled import Guards
from apps.policies.guarding import Guarding
from apps.policies.rules import Guardrail
from apps.policies.scanning import HOLD_BACK, Blocked
from apps.usage.contracts import Outcome, RequestClosed
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_guardrails import CANARY, MAIL, guard, verdicts
from tests.policies.rules import keywords, pattern, personal
from tests.upstream import anthropic_shapes as shapes
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream, folded, sse

__all__ = ["upstream"]
TEXT = f"Dear {MAIL}, your card 4111 1111 1111 1111 and {MAIL} " + "and so on " * 60 + "b@example.com"
REDACTED = "Dear [EMAIL_1], your card [CARD_1] and [EMAIL_1] " + "and so on " * 60 + "[EMAIL_2]"


def said(call: Call) -> str:
    """The content that a stream told."""
    return str(folded(call.events[:-1])[0]["message"]["content"])


@pytest.mark.asyncio
async def test_a_whole_answer_is_redacted_before_it_is_sent(bench: Bench) -> None:
    rule = personal(direction="output")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", TEXT)
    assert call.json["choices"][0]["message"]["content"] == REDACTED
    assert verdicts(bench, call) == [(rule.id, "output", "redacted")]
    assert bench.record(call).outcome is Outcome.COMPLETED


@pytest.mark.asyncio
async def test_a_whole_answer_that_is_withheld_is_billed_as_the_model_wrote_it(bench: Bench) -> None:
    text = f"say {CANARY} now"
    paid = bench.record(await bench.chat("sandbox-echo", text))
    rule = keywords(CANARY, direction="output", name="No birds")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", text)
    assert (call.status, call.json["error"]["code"]) == (400, "content_policy_violation")
    assert call.json["error"]["message"] == "The answer was withheld by a guardrail of your organization: “No birds”."
    end = bench.record(call)
    assert (end.tokens, end.cost_nanos, end.estimated) == (paid.tokens, paid.cost_nanos, False) and end.cost_nanos
    assert (end.outcome, end.http_status, end.error_code) == (Outcome.FAILED, 400, "content_policy_violation")
    assert verdicts(bench, call) == [(rule.id, "output", "blocked")]
    assert not bench.runtime.upstreams.troubled


@pytest.mark.asyncio
async def test_a_stream_is_redacted_on_its_way(bench: Bench) -> None:
    rule = personal(direction="output")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", TEXT, stream=True)
    assert said(call) == REDACTED
    assert call.events[-1] == "[DONE]" and call.events[-2]["usage"]["cost"] > 0
    assert verdicts(bench, call) == [(rule.id, "output", "redacted")]
    assert len(call.events) > 6, "it came in one piece"


@pytest.mark.asyncio
async def test_a_placeholder_means_the_same_in_request_and_answer(bench: Bench) -> None:
    guard(bench, personal("email", direction="input"), personal("email", direction="output"))
    call = await bench.chat("sandbox-echo", f"x@example.com {MAIL}", stream=True)
    assert said(call) == "[EMAIL_1] [EMAIL_2]"


@pytest.mark.asyncio
async def test_a_stream_that_is_blocked_ends_with_an_error_and_bills_what_was_delivered(bench: Bench) -> None:
    words = 200
    rule = keywords(CANARY, direction="output", name="No birds")
    guard(bench, rule)
    call = await bench.chat("sandbox-echo", "word " * words + f"{CANARY} " + "more " * 50, stream=True)
    *chunks, last = call.events
    assert last["error"]["code"] == "content_policy_violation" and "[DONE]" not in call.events
    delivered = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert delivered == "word " * words, "all that stands before the forbidden place, and nothing behind it"
    end = bench.record(call)
    assert (end.outcome, end.error_code, end.estimated) == (Outcome.FAILED, "content_policy_violation", True)
    assert words <= end.tokens.output <= words + 20
    assert end.tokens.input == end.opened.input_estimate
    assert verdicts(bench, call) == [(rule.id, "output", "blocked")]
    assert CANARY not in call.body.decode()
    assert not bench.runtime.upstreams.troubled


@pytest.mark.asyncio
async def test_a_stream_that_is_blocked_at_once_costs_nothing(bench: Bench) -> None:
    guard(bench, keywords(CANARY, direction="output"))
    call = await bench.chat("sandbox-echo", CANARY, stream=True)
    assert call.events[-1]["error"]["code"] == "content_policy_violation"
    assert CANARY not in call.body.decode()
    assert bench.record(call).cost_nanos == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/api/v1/chat/completions", "/api/v1/completions", "/api/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
async def test_every_endpoint_that_asks_a_model_is_guarded(bench: Bench, path: str, stream: bool) -> None:
    bench.offer("sandbox-echo")
    body: dict[str, Any] = {"model": "sandbox-echo", "max_tokens": 100, "stream": stream}
    text = f"to {MAIL} ok"
    body |= {"prompt": text} if path.endswith("/completions") and "chat" not in path else {
        "messages": [{"role": "user", "content": text}]}  # fmt: skip
    for direction in ("input", "output"):
        guard(bench, personal("email", direction=direction))
        call = await bench.call(path, body)
        assert call.status == 200
        assert MAIL not in call.body.decode() and "[EMAIL_1]" in call.body.decode()
    guard(bench, keywords(MAIL, direction="input"))
    call = await bench.call(path, body)
    assert call.status == 400 and call.json["error"]["code"] == "content_policy_violation"
    guard(bench, keywords(MAIL, direction="output"))
    call = await bench.call(path, body)
    assert MAIL not in call.body.decode() and "content_policy_violation" in call.body.decode()


@pytest.mark.asyncio
async def test_what_anthropics_own_upstreams_get_is_redacted(bench: Bench, upstream: ScriptedUpstream) -> None:
    guard(bench, personal("email", direction="input"))
    upstream.offer(bench, "anthropic")
    upstream.answer(b"{}", status=400)
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": f"see {MAIL}"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": f"data: {MAIL}"}, document]}]
    body = {"model": PUBLIC_MODEL, "max_tokens": 5, "system": f"for {MAIL}", "messages": messages}
    await bench.call("/api/v1/messages", body)
    sent = upstream.request.body.decode()
    assert MAIL not in sent and sent.count("[EMAIL_1]") == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_own_answers_do_not_go_around_the_rules(
    bench: Bench, upstream: ScriptedUpstream, stream: bool
) -> None:
    guard(bench, personal("email", direction="output"))
    upstream.offer(bench, "anthropic")
    said_by_model = [shapes.text(f"write to {MAIL} "), shapes.CALL | {"input": {"to": MAIL}}]
    if stream:
        upstream.answer(*shapes.streamed(*said_by_model))
    else:
        upstream.answer(shapes.message(*said_by_model))
    body = {"model": PUBLIC_MODEL, "max_tokens": 50, "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    call = await bench.call("/api/v1/messages", body)
    assert call.status == 200
    told = call.body.decode()
    assert MAIL not in told and "write to " in told and "toolu_01NRLab" in told and "[EMAIL_1]" in told


@pytest.mark.asyncio
async def test_logprobs_do_not_tell_what_is_hidden(bench: Bench, upstream: ScriptedUpstream) -> None:
    guard(bench, personal("email", direction="output"))
    upstream.offer(bench, "openai")
    logprobs = {"content": [{"token": "ann@", "logprob": -1.0}, {"token": "example.com", "logprob": -1.0}]}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": MAIL},
        "logprobs": logprobs,
        "finish_reason": "stop",
    }
    upstream.answer(orjson.dumps({"id": "x", "object": "chat.completion", "created": 1, "choices": [choice]}))
    body = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "x"}], "logprobs": True}
    whole = await bench.call("/api/v1/chat/completions", body)
    piece = {"index": 0, "delta": {"content": "ann@"}, "logprobs": logprobs, "finish_reason": None}
    end = {"index": 0, "delta": {"content": "example.com"}, "logprobs": logprobs, "finish_reason": "stop"}
    chunks = [{"id": "x", "object": "chat.completion.chunk", "created": 1, "choices": [each]} for each in (piece, end)]
    upstream.answers.clear()
    upstream.answer(*sse(*chunks, "[DONE]"))
    streamed = await bench.call("/api/v1/chat/completions", body | {"stream": True})
    for call in (whole, streamed):
        assert call.status == 200 and "[EMAIL_1]" in call.body.decode() and "example" not in call.body.decode()


@pytest.mark.asyncio
async def test_what_waited_is_told_when_the_upstream_breaks(bench: Bench, upstream: ScriptedUpstream) -> None:
    guard(bench, personal("email", direction="output"))
    upstream.offer(bench, "openai")
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": f"as {MAIL} said"}, "finish_reason": None}]}  # fmt: skip
    upstream.answer(*sse(chunk), cut=True)
    body = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "x"}], "stream": True}
    call = await bench.call("/api/v1/chat/completions", body)
    assert said(call) == "as [EMAIL_1] said"
    assert call.events[-1]["error"]["code"] == "upstream_failed"


@pytest.mark.asyncio
async def test_what_is_found_is_in_no_journal_and_no_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for rules in ([keywords(CANARY)], [keywords(CANARY, mode="log")], [keywords(CANARY, action="redact")],
                  [keywords(CANARY, direction="output")]):  # fmt: skip
        guard(bench, *rules)
        for stream in (False, True):
            await bench.chat("sandbox-echo", f"the {CANARY} sings to {MAIL}", stream=stream)
    ends = [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]
    assert len(ends) == 8 and all(end.guardrails for end in ends)
    written = b"".join(path.read_bytes() for path in bench.runtime.journal.folder.glob("*"))
    for secret in (CANARY, MAIL):
        assert secret.encode() not in written and secret not in caplog.text


@st.composite
def _streams(draw: Any) -> tuple[list[dict[str, Any]], str, str]:
    """Deltas of a stream with content and arguments of a call, each cut anywhere, and the two texts."""
    parts = st.sampled_from(
        [MAIL, "4111 1111 1111 1111", " ", "word " * 20, "secret", "é😀", '{"a": "', '"}', "x" * 90]
    )
    content, arguments = ("".join(draw(st.lists(parts, max_size=12))) for _ in range(2))
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in _cut(draw, content)]
    deltas.append(
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
    )
    deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _cut(draw, arguments)]
    return deltas, content, arguments


def _cut(draw: Any, text: str) -> list[str]:
    borders = sorted(draw(st.sets(st.integers(0, len(text)), max_size=20)) | {0, len(text)})
    return [text[start:stop] for start, stop in pairwise(borders) if start < stop]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_streams(), st.booleans())
def test_any_chunks_give_what_the_whole_texts_give(stream: tuple[list[dict[str, Any]], str, str], in_one: bool) -> None:
    deltas, content, arguments = stream
    rules = [personal("email", "card"), keywords("secret", action="redact")]
    guarding, whole = Guarding(Guards(rules)), Guarding(Guards(rules))
    stream_guard = StreamGuard(guarding)
    blocks = [*sse(*map(_chunk, deltas), _chunk({}, "stop"))]
    out = b"".join(map(stream_guard.feed, [b"".join(blocks)] if in_one else blocks)) + stream_guard.end()
    message = folded([orjson.loads(event_data(event)) for event in events(out)])[0]["message"]
    assert (message.get("content") or "") == whole.read(content, "output")
    assert message["tool_calls"][0]["function"]["arguments"] == whole.read(arguments, "output")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_streams(), st.booleans())
def test_what_stands_before_a_forbidden_place_goes_on_however_it_was_cut(
    stream: tuple[list[dict[str, Any]], str, str], in_one: bool
) -> None:
    deltas, content, arguments = stream
    rules = [personal("email", "card"), keywords("secret")]
    stream_guard = StreamGuard(Guarding(Guards(rules)))
    blocks = [*sse(*map(_chunk, deltas), _chunk({}, "stop"))]
    out = b"".join(map(stream_guard.feed, [b"".join(blocks)] if in_one else blocks)) + stream_guard.end()
    choice = folded([orjson.loads(event_data(event)) for event in events(out)])[0]
    calls = choice["message"].get("tool_calls") or [{"function": {"arguments": ""}}]
    whole, told, is_blocked = Guarding(Guards(rules)), [], False
    for text in (content, arguments):
        try:
            told.append("" if is_blocked else whole.read(text, "output"))
        except Blocked as blocked:
            told.append(blocked.before)
            is_blocked = True
    assert [choice["message"].get("content") or "", calls[0]["function"]["arguments"]] == told
    assert (choice["finish_reason"], stream_guard.failure is not None) == (None if is_blocked else "stop", is_blocked)
    assert stream_guard.output_count >= sum(len(text.split()) for text in told)


@pytest.mark.parametrize("after", ["", " and " * 200])
@pytest.mark.parametrize("is_last", [False, True])
def test_one_large_chunk_delivers_what_stands_before_the_forbidden_place(after: str, is_last: bool) -> None:
    stream_guard = StreamGuard(Guarding(Guards([keywords(CANARY), personal("email")])))
    before = f"to {MAIL}, " + "word " * 500
    chunk = _chunk({"content": f"{before}{CANARY}{after}"}, "stop" if is_last else None)
    out = stream_guard.feed(b"".join(sse(chunk))) + stream_guard.end()
    choice = folded([orjson.loads(event_data(event)) for event in events(out)])[0]
    assert choice == {"message": {"content": before.replace(MAIL, "[EMAIL_1]")}, "finish_reason": None}
    assert stream_guard.failure is not None and 502 <= stream_guard.output_count <= 503  # a word was cut


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}  # fmt: skip


def test_shapes_of_vendors_keep_their_places() -> None:
    rules: list[Guardrail] = [personal("email")]
    stream_guard = StreamGuard(Guarding(Guards(rules)))
    thinking = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": f"it is {MAIL}"}]}]}
    details = {"reasoning_details": [{"index": 0, "type": "reasoning.text", "text": MAIL, "signature": "sig"}]}
    deltas = [thinking, {"content": [{"type": "text", "text": "so "}]}, {"content": "yes"}, details, {"refusal": MAIL}]
    out = b"".join(stream_guard.feed(b"".join(sse(_chunk(delta)))) for delta in deltas) + stream_guard.end()
    found = [orjson.loads(event_data(event))["choices"][0]["delta"] for event in events(out)]
    told = orjson.dumps(found).decode()
    assert MAIL not in told and told.count("[EMAIL_1]") == 3 and '"signature":"sig"' in told
    assert '{"type":"thinking","thinking":[{"type":"text","text":"it is [EMAIL_1]"}]}' in told


def test_no_more_of_a_stream_waits_than_is_said() -> None:
    stream_guard = StreamGuard(Guarding(Guards([pattern("nothing of it")])))
    out = 0
    for count in range(1, 400):
        for event in events(stream_guard.feed(b"".join(sse(_chunk({"content": "ten chars "}))))):
            out += len(orjson.loads(event_data(event))["choices"][0]["delta"]["content"])
        assert 10 * count - out <= HOLD_BACK
