"""POST /completions: legacy text completions, asked as a chat of any model."""

import asyncio
from typing import Any

import msgspec
import orjson
import pytest

from apps.gateway.dialects.completions import CompletionsStream, parse_completions, text_completion
from apps.gateway.errors import GatewayError
from apps.gateway.providers import upstream_request
from apps.usage.contracts import Outcome, TokenCounts
from tests.factories import PRICE, TARGET, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_fallback import ends, left
from tests.upstream.anthropic_shapes import message, text
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream, sse

__all__ = ["upstream"]

COMPLETIONS = "/api/v1/completions"
ONE = {"model": "sandbox-echo", "prompt": "one two three"}


async def ask(bench: Bench, model: str = "sandbox-echo", prompt: Any = "one two three", **fields: Any) -> Call:
    bench.offer(model)
    return await bench.call(COMPLETIONS, {"model": model, "prompt": prompt, **fields})


@pytest.mark.asyncio
@pytest.mark.parametrize("prompt", ["one two three", ["one two three"]])
async def test_an_answer_is_openais_with_the_cost(bench: Bench, prompt: Any) -> None:
    call = await ask(bench, prompt=prompt)
    answer = call.json
    assert call.status == 200
    assert answer.pop("id") == "cmpl-" + call.request_id.removeprefix("req_")
    assert type(answer.pop("created")) is int
    usage = answer.pop("usage")
    assert answer == {
        "object": "text_completion",
        "model": "sandbox-echo",
        "choices": [{"text": "one two three", "index": 0, "logprobs": None, "finish_reason": "stop"}],
    }
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (3, 3, 6)
    assert (usage["cost"], call.headers["x-crun-cost"]) == (2.25e-06, "0.000002250")
    record = bench.record(call)
    assert (record.tokens, record.cost_nanos) == (TokenCounts(input=3, output=3), 2_250)


@pytest.mark.asyncio
async def test_a_stream_has_openais_chunks_and_its_usage_in_the_last_one(bench: Bench) -> None:
    call = await ask(bench, stream=True)
    assert call.headers["content-type"].startswith("text/event-stream")
    *chunks, last, done = call.events
    assert done == "[DONE]"
    assert [chunk["choices"][0]["text"] for chunk in chunks] == ["one ", "two ", "three", ""]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    for chunk in chunks:
        assert set(chunk) == {"id", "object", "created", "model", "choices"}
        assert set(chunk["choices"][0]) == {"text", "index", "logprobs", "finish_reason"}
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 6 and last["usage"]["cost"] == 2.25e-06
    expected = ("cmpl-" + call.request_id.removeprefix("req_"), "text_completion", "sandbox-echo")
    assert {(each["id"], each["object"], each["model"]) for each in call.events[:-1]} == {expected}
    assert bench.record(call).tokens == TokenCounts(input=3, output=3)


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_sixteen_tokens_are_the_default_and_what_is_held_for(
    bench: Bench, empty_store: Any, stream: bool
) -> None:
    body = {"model": "sandbox-echo", "prompt": " ".join(["word"] * 40), "stream": stream}
    bench.models["sandbox-echo"] = offered(
        id="sandbox-echo", targets=(bench.target("sandbox-echo"),), max_output_tokens=1_000
    )
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    call = await bench.call(COMPLETIONS, body)
    end = bench.record(call)
    assert (end.tokens.output, end.finish_reason) == (16, "length")
    bound = parse_completions(orjson.dumps(body)).input_bound(128_000)
    assert len(orjson.dumps(body)) <= bound <= len(orjson.dumps(body)) + 60
    expected = bound * PRICE.input + 16 * PRICE.output
    assert end.opened.hold_nanos == -(-expected // 10**6)
    wider = bench.record(await bench.call(COMPLETIONS, {**body, "max_tokens": 100, "n": 2}))
    assert (wider.tokens.output, wider.finish_reason) == (80, "stop")
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_choices_echo_and_stop(bench: Bench, stream: bool) -> None:
    call = await ask(bench, prompt="a b\nc d", n=2, stop=["d"], echo=True, temperature=0, top_p=1, stream=stream)
    assert call.status == 200
    texts = {0: "", 1: ""}
    for event in call.events[:-1] if stream else [call.json]:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == dict.fromkeys((0, 1), "a b\nc da b\nc ")


def test_the_output_is_bounded_in_the_field_that_the_provider_knows() -> None:
    asked = parse_completions(orjson.dumps({**ONE, "max_tokens": 500, "seed": 1, "min_p": 0.1, "best_of": 1}))
    model = offered(id="sandbox-echo", max_output_tokens=100)
    asked.check_model(model)
    target = msgspec.structs.replace(TARGET, output_limit_field="max_completion_tokens")
    request = upstream_request(asked, model, target, request_id="req_1")
    assert request.url.endswith("/chat/completions")
    assert orjson.loads(request.body) == {
        "model": "gpt-x",
        "seed": 1,
        "min_p": 0.1,
        "messages": [{"role": "user", "content": "one two three"}],
        "max_completion_tokens": 100,
    }


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_gives_the_hold_back(bench: Bench, empty_store: Any, stream: bool) -> None:
    await ask(bench)
    before, *_ = await left(bench, empty_store)
    call = await ask(bench, "sandbox-fault-500", stream=stream)
    assert (call.status, call.json["error"]["code"]) == (502, "upstream_failed")
    assert bench.record(call).cost_nanos == 0
    assert await left(bench, empty_store) == (before, 0, 0)


@pytest.mark.asyncio
async def test_a_torn_stream_ends_with_an_error_and_bills_what_came(bench: Bench, empty_store: Any) -> None:
    call = await ask(bench, "sandbox-fault-cut-2", stream=True)
    assert call.events[-1]["error"]["code"] == "upstream_failed"
    assert [event["choices"][0]["text"] for event in call.events[:-1]] == ["one ", "two "]
    end = bench.record(call)
    assert (end.outcome, end.tokens, end.estimated) == (Outcome.FAILED, TokenCounts(input=3, output=2), True)
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_a_client_that_leaves_ends_its_stream(bench: Bench, empty_store: Any) -> None:
    bench.offer("sandbox-echo")
    words = " ".join(["word"] * 1_000)
    body = {"model": "sandbox-echo", "prompt": words, "max_tokens": 1_000, "stream": True}
    call = bench.start(COMPLETIONS, {**body, "sandbox": {"chunk_delay_ms": 50}})
    await call.until(lambda call: b'"text"' in call.body)
    call.leave()
    assert call.task is not None
    async with asyncio.timeout(30):
        await call.task
    (end,) = ends(bench)
    assert end.outcome is Outcome.CANCELLED
    assert (await bench.truth_of(call)).outcome == "client_gone"
    assert (await left(bench, empty_store))[1:] == (0, 0)


@pytest.mark.asyncio
async def test_fallback_receipt_and_repetition_work_as_for_chat(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    for model in ("sandbox-fault-503", "sandbox-echo"):
        bench.offer(model)
    headers = {"authorization": f"Bearer {bench.key}", "idempotency-key": "k"}
    body = {**ONE, "model": "sandbox-fault-503", "models": ["sandbox-echo"], "stream": True}
    call = await bench.call(COMPLETIONS, body, headers=headers)
    assert call.events[-1] == "[DONE]" and call.events[0]["model"] == "sandbox-echo"
    again = await bench.call(COMPLETIONS, body, headers=headers)
    assert (again.body, again.headers["x-crun-idempotent-replay"]) == (call.body, "true")
    assert len(ends(bench)) == 1


@pytest.mark.asyncio
async def test_what_is_wrong_with_the_messages_is_wrong_with_the_prompt(bench: Bench) -> None:
    bench.runtime.catalog.snapshot = snapshot(offered(id="m", context_length=50, tokenizer="o200k_base"))
    call = await bench.call(COMPLETIONS, {"model": "m", "prompt": "one two three " * 100})
    error = call.json["error"]
    assert (call.status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")


@pytest.mark.asyncio
async def test_so_is_what_an_upstream_says_of_them(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "openai")
    error = {"message": "No.", "type": "invalid_request_error", "param": "messages[0].content", "code": "bad"}
    upstream.answer(orjson.dumps({"error": error}), status=400)
    call = await bench.call(COMPLETIONS, {"model": PUBLIC_MODEL, "prompt": "one"})
    assert (call.status, call.json["error"]["param"]) == (400, "prompt")


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("model", {"model": None}),
        ("prompt", {"prompt": None}),
        ("prompt", {"prompt": 5}),
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": ["a", "b"]}),
        ("prompt", {"prompt": [1, 2]}),
        ("prompt", {"prompt": [[1, 2]]}),
        ("max_tokens", {"max_tokens": 0}),
        ("max_tokens", {"max_tokens": True}),
        ("temperature", {"temperature": 2.5}),
        ("n", {"n": 9}),
        ("stop", {"stop": 5}),
        ("stream", {"stream": 1}),
        ("echo", {"echo": 1}),
        ("suffix", {"suffix": 1}),
        ("logprobs", {"logprobs": -1}),
        ("logprobs", {"logprobs": True}),
        ("best_of", {"best_of": 1, "n": 2}),
        ("best_of", {"best_of": True}),
        ("best_of", {"best_of": 21}),
        ("best_of", {"best_of": 3, "stream": True}),
        ("messages", {"messages": []}),
        ("tools", {"tools": []}),
        ("max_completion_tokens", {"max_completion_tokens": 5}),
        ("user", {"user": 5}),
    ],
)
def test_a_bad_field_is_named(param: str, fields: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_completions(orjson.dumps({**ONE, **fields}))
    assert (refused.value.kind.status, refused.value.param) == (400, param)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("param", "fields"),
    [("suffix", {"suffix": "end"}), ("logprobs", {"logprobs": 2, "echo": True}), ("best_of", {"best_of": 3})],
)
async def test_what_no_chat_can_stand_for_is_refused_before_money_is_held(
    bench: Bench, param: str, fields: dict[str, Any]
) -> None:
    call = await ask(bench, **fields)
    assert (call.status, call.json["error"]["param"]) == (400, param)
    assert not ends(bench)


def test_fields_that_say_nothing_are_taken() -> None:
    nothing = {"suffix": "", "logprobs": None, "best_of": 2, "n": 2, "echo": None, "max_tokens": None, "stream": None}
    asked = parse_completions(orjson.dumps({**ONE, **nothing}))
    assert (asked.choices, asked.asked_output, asked.echoed) == (2, 16, "")


def tokens(*texts: str) -> dict[str, Any]:
    top = [{"token": "x", "logprob": -0.5}, {"token": "y", "logprob": -1.5}]
    return {"content": [{"token": text, "logprob": -0.5, "top_logprobs": top} for text in texts]}


def test_log_probabilities_are_those_of_the_chat_whole_and_as_a_stream() -> None:
    asked = parse_completions(orjson.dumps({**ONE, "logprobs": 2}))
    assert (asked.body["logprobs"], asked.body["top_logprobs"]) == (True, 2)
    assert "top_logprobs" not in parse_completions(orjson.dumps({**ONE, "logprobs": 0})).body
    message = {"content": "One two"}
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": tokens("One", " two")}]}
    told = text_completion(answer, request_id="req_1", model="m", echoed="")["choices"][0]["logprobs"]
    assert told == {
        "tokens": ["One", " two"], "token_logprobs": [-0.5, -0.5], "text_offset": [0, 3],
        "top_logprobs": [{"x": -0.5, "y": -1.5}] * 2,
    }  # fmt: skip
    stream = CompletionsStream(request_id="req_1", model="m", echoed="")
    pieces = []
    for piece in ("One", " two"):
        choice = {"index": 0, "delta": {"content": piece}, "finish_reason": None, "logprobs": tokens(piece)}
        event = stream.feed(b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\n")
        pieces.append(orjson.loads(event[6:])["choices"][0]["logprobs"])
    assert {name: [*pieces[0][name], *pieces[1][name]] for name in told} == told


@pytest.mark.asyncio
async def test_log_probabilities_that_an_upstream_has_no_word_for_are_named_as_dropped(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "anthropic")
    upstream.answer(message(text("Well")))
    call = await bench.call(COMPLETIONS, {"model": PUBLIC_MODEL, "prompt": "one", "logprobs": 2})
    assert (call.status, call.json["choices"][0]["logprobs"]) == (200, None)
    assert call.headers["x-crun-dropped-params"] == "logprobs, top_logprobs"


def test_thoughts_and_roles_have_no_place() -> None:
    stream = CompletionsStream(request_id="req_1", model="m", echoed="")
    head = b'data: {"id":"chatcmpl-1","created":7,"model":"m","choices":[{"index":0,"delta":'
    assert stream.feed(head + b'{"role":"assistant","content":""},"finish_reason":null}]}\n\n') == b""
    assert stream.feed(head + b'{"reasoning_content":"hm"},"finish_reason":null}]}\n\n') == b""
    both = head + b'{"content":"a"},"finish_reason":null}]}\n\n' + head + b'{},"finish_reason":"stop"}]}\n\n'
    told = [orjson.loads(line[6:]) for line in stream.feed(both).split(b"\n\n") if line]
    assert [(each["choices"][0]["text"], each["choices"][0]["finish_reason"]) for each in told] == [
        ("a", None), ("", "stop"),
    ]  # fmt: skip
    assert {each["created"] for each in told} == {7}


@pytest.mark.asyncio
async def test_chunks_may_lack_all_but_their_text(bench: Bench, upstream: ScriptedUpstream, empty_store: Any) -> None:
    upstream.offer(bench, "openai")
    odd = {"created": "today", "choices": [{"index": [], "delta": {"content": "b"}, "finish_reason": "stop"}]}
    upstream.answer(*sse({"choices": [{"delta": {"content": "a "}}]}, odd, "[DONE]"))
    call = await bench.call(COMPLETIONS, {"model": PUBLIC_MODEL, "prompt": "p", "echo": True, "stream": True})
    first, second, usage, done = call.events
    assert [each["choices"][0] for each in (first, second)] == [
        {"text": "pa ", "index": 0, "logprobs": None, "finish_reason": None},
        {"text": "b", "index": 0, "logprobs": None, "finish_reason": "stop"},
    ]
    assert {each["model"] for each in (first, second, usage)} == {PUBLIC_MODEL}
    assert first["created"] == second["created"] == usage["created"] > 1_700_000_000
    assert done == "[DONE]"
    assert bench.record(call).outcome is Outcome.COMPLETED
    assert (await left(bench, empty_store))[1:] == (0, 0)


def test_the_text_of_an_answer_in_parts_is_told_without_its_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]
    more = [None, {"type": "text", "text": None}, {"type": "text", "text": "b"}]
    answer = {"choices": [{"index": 0, "message": {"content": [*parts, *more]}, "finish_reason": "stop"}]}
    told = text_completion(answer, request_id="req_1", model="m", echoed="")
    assert told["choices"][0]["text"] == "ab"


@pytest.mark.asyncio
async def test_a_client_that_leaves_while_it_does_not_read_pays_for_what_came(bench: Bench, empty_store: Any) -> None:
    bench.offer("sandbox-echo")
    is_stuck = asyncio.Event()
    messages = [{"type": "http.request", "body": orjson.dumps({**ONE, "stream": True}), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await is_stuck.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if b'"text"' in message.get("body", b""):
            is_stuck.set()
            await asyncio.Event().wait()

    headers = [(b"authorization", f"Bearer {bench.key}".encode())]
    scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": headers, "client": None}
    async with asyncio.timeout(60):
        await bench.app(scope, receive, send)
    (end,) = ends(bench)
    assert (end.outcome, end.tokens.input, end.estimated) == (Outcome.CANCELLED, 3, True)
    assert end.tokens.output >= 1
    assert (await left(bench, empty_store))[1:] == (0, 0)
