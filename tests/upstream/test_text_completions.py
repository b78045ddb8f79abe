"""Legacy Completions at upstreams that serve them: what is asked, answered, held for and billed.

The shapes are those of examples in the Completions reference of OpenAI, of DeepSeek's API reference ("Create FIM
Completion (Beta)") and of Mistral's ("Fim Completion"); words and numbers are our own."""

from typing import Any

import msgspec
import orjson
import pytest

from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.completions import CompletionsRequest, parse_completions
from apps.gateway.dialects.sse import event_data, events
from apps.gateway.errors import GatewayError
from apps.gateway.providers import upstream_request
from apps.gateway.providers.text_completions import TextCompletionsStream, whole_answer
from apps.usage.contracts import Outcome, TokenCounts
from tests.factories import PRICE, TARGET, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.policies.rules import personal, policy
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, ScriptedUpstream, sse

__all__ = ["upstream"]
PATH = "/api/v1/completions"
NATIVE = {"completions": "native"}
PROMPT, SUFFIX = "def fib(a):", "return fib(a - 1)"
USAGE = {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15}
LOGPROBS = {
    "tokens": ["def", " fib"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {" fib": -0.5, " f": -2.0}],
    "text_offset": [0, 3],
}  # fmt: skip
MAIL = "ann@example.com"


def completion(*texts: str, usage: Any = USAGE, **choice: Any) -> dict[str, Any]:
    choices = [
        {"text": text, "index": index, "logprobs": None, "finish_reason": "stop", **choice}
        for index, text in enumerate(texts)
    ]
    return {
        "id": "cmpl-7", "object": "text_completion", "created": 1_700_000_000, "model": UPSTREAM_MODEL,
        "choices": choices, "usage": usage,
    }  # fmt: skip


def chunk(text: str, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"text": text, "index": index, "logprobs": None, "finish_reason": reason, **more}
    return {"id": "cmpl-7", "object": "text_completion", "created": 1, "model": UPSTREAM_MODEL, "choices": [choice]}


def read(**fields: Any) -> CompletionsRequest:
    return parse_completions(orjson.dumps({"model": PUBLIC_MODEL, "prompt": PROMPT, **fields}))


def sent(form: str, **fields: Any) -> tuple[str, Any, tuple[str, ...]]:
    """(path, body, what was dropped) of the request to an upstream of this form."""
    target = msgspec.structs.replace(TARGET, options=with_defaults("openai", {"completions": form}))
    model = offered(id=PUBLIC_MODEL, targets=(target,), max_output_tokens=5_000)
    asked = read(**fields)
    asked.check_model(model)
    request = upstream_request(asked, model, target, request_id="req_1")
    assert request.url.startswith(target.base_url)
    return request.url.removeprefix(target.base_url), orjson.loads(request.body), request.dropped


async def ask(bench: Bench, **fields: Any) -> Call:
    return await bench.call(PATH, {"model": PUBLIC_MODEL, "prompt": PROMPT, **fields})


def test_the_request_goes_as_it_was_asked() -> None:
    asked = {"suffix": SUFFIX, "n": 2, "best_of": 3, "logprobs": 0, "temperature": 0, "stop": ["\n"], "seed": 1}
    assert sent("native", **asked, user="u", models=["other"]) == (
        "/completions",
        {"model": "gpt-x", "prompt": PROMPT, "max_tokens": 16, "user": "u", **asked},
        (),
    )
    _, body, dropped = sent("native", echo=True, max_tokens=9_000, stream=True, stream_options={"chunk": 1})
    assert body == {
        "model": "gpt-x", "prompt": PROMPT, "max_tokens": 5_000, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    assert dropped == ("stream_options.chunk",)
    assert sent("native", echo=True, logprobs=2)[1] == {
        "model": "gpt-x", "prompt": PROMPT, "max_tokens": 16, "echo": True, "logprobs": 2,
    }  # fmt: skip


def test_mistral_is_told_what_it_knows_and_the_rest_is_named_or_refused() -> None:
    path, body, dropped = sent("fim", suffix=SUFFIX, seed=3, top_p=0.5, logprobs=1, n=1, user="u", stream=True)
    assert path == "/fim/completions"
    assert body == {
        "model": "gpt-x", "prompt": PROMPT, "max_tokens": 16, "suffix": SUFFIX, "random_seed": 3, "top_p": 0.5,
        "stream": True,
    }  # fmt: skip
    assert dropped == ("user", "logprobs")
    for fields, param in (({"n": 2}, "n"), ({"best_of": 2}, "best_of"), ({"echo": True, "logprobs": 1}, "logprobs")):
        with pytest.raises(GatewayError) as refused:
            sent("fim", **fields)
        assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_what_stands_behind_the_gap_is_input() -> None:
    short, long = read(), read(suffix=SUFFIX * 50)
    assert long.input_bound(128_000) - short.input_bound(128_000) >= len(SUFFIX) * 50
    assert long.input_estimate() > short.input_estimate() + len(SUFFIX) * 10
    assert long.longest_text() == PROMPT + SUFFIX * 50
    assert [place.text for place in long.text_places()] == [PROMPT, SUFFIX * 50]


def chat(asked: CompletionsRequest, wire: bytes, size: int) -> list[Any]:
    """The chat that stands for a stream which comes in reads of this size."""
    stream = TextCompletionsStream(asked)
    said = b"".join(stream.feed(wire[at : at + size]) for at in range(0, len(wire), size)) + stream.end()
    told = [event_data(event) for event in events(said)]
    return [payload.decode() if payload == b"[DONE]" else orjson.loads(payload) for payload in told]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_prompt_that_is_said_again_is_no_output_wherever_the_stream_is_cut(size: int) -> None:
    asked = read(echo=True, logprobs=1)
    pieces = [
        chunk("def", logprobs={**LOGPROBS, "tokens": ["def"]}), chunk(" fib(a):\n  if", index=1), chunk(" fib(a):"),
        chunk("\n  if"), chunk("", "stop"), {**completion(), "usage": USAGE}, "[DONE]",
    ]  # fmt: skip
    told = chat(asked, b"".join(sse(*pieces)), size)
    assert told.pop() == "[DONE]"
    assert told.pop()["usage"] == USAGE
    choices = [each["choices"][0] for each in told]
    assert [(each["index"], each["delta"]["content"]) for each in choices] == [
        (0, ""), (1, " fib(a):\n  if"), (0, "\n  if"), (0, ""),
    ]  # fmt: skip
    assert choices[0]["logprobs"]["content"][0] == {"token": "def", "logprob": None, "top_logprobs": []}
    whole = whole_answer(orjson.dumps(completion(PROMPT + "\n  if", logprobs=LOGPROBS)), asked)
    assert whole["choices"][0]["message"]["content"] == "\n  if"
    assert whole["choices"][0]["logprobs"]["content"][1]["top_logprobs"][1] == {"token": " f", "logprob": -2.0}


def test_chunks_of_a_chat_and_what_is_no_text_pass() -> None:
    of_chat = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}
    error = {"error": {"message": "No."}}
    assert chat(read(), b"".join(sse(of_chat, error, "[DONE]")), 10_000) == [of_chat, error, "[DONE]"]
    assert whole_answer(orjson.dumps({"choices": [{"message": {"content": "a"}}]}), read())["choices"]
    for nothing in (b"{}", b"[]", b'{"choices": []}', b'{"choices": ["a"]}', b"<html>"):
        with pytest.raises(ValueError):
            whole_answer(nothing, read())


@pytest.mark.asyncio
async def test_all_that_were_written_are_billed_and_held_for_whichever_are_shown(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "openai", options=NATIVE)
    upstream.answer(orjson.dumps(completion("a", "b", usage={**USAGE, "completion_tokens": 300, "total_tokens": 309})))
    call = await ask(bench, n=2, best_of=3, max_tokens=100, suffix=SUFFIX)
    assert [choice["text"] for choice in call.json["choices"]] == ["a", "b"]
    record = bench.record(call)
    assert (record.tokens, record.estimated) == (TokenCounts(input=9, output=300), False)
    assert record.opened.hold_nanos >= 300 * PRICE.output // 10**6 >= 300 * 600
    assert call.json["usage"]["cost"] == pytest.approx(record.cost_nanos / 10**9)
    assert (call.json["model"], call.json["object"]) == (PUBLIC_MODEL, "text_completion")
    assert UPSTREAM_MODEL.encode() not in call.body and b"cmpl-7" not in call.body


@pytest.mark.asyncio
async def test_a_stream_says_what_the_whole_answer_does_and_costs_the_same(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "openai", options=NATIVE)
    upstream.answer(orjson.dumps(completion("\n  if a")))
    whole = await ask(bench, suffix=SUFFIX, echo=True)
    assert "echo" not in upstream.request.json  # it is ours to say where nobody wants to know how likely it was
    upstream.answers.clear()
    last = {**completion(), "choices": [], "usage": USAGE}
    upstream.answer(*sse(chunk("\n  if"), chunk(" a"), chunk("", "stop"), last, "[DONE]"))
    stream = await ask(bench, suffix=SUFFIX, echo=True, stream=True)
    *told, usage, done = stream.events
    assert (
        "".join(each["choices"][0]["text"] for each in told) == whole.json["choices"][0]["text"] == PROMPT + "\n  if a"
    )
    assert usage["usage"] == whole.json["usage"] and done == "[DONE]"
    first, second = bench.record(whole), bench.record(stream)
    assert first.tokens == second.tokens == TokenCounts(input=9, output=6)
    assert first.cost_nanos == second.cost_nanos


@pytest.mark.asyncio
async def test_a_torn_stream_bills_what_was_written_and_not_the_prompt_that_was_said_again(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "openai", options=NATIVE)
    upstream.answer(*sse(chunk("def fib(a):"), chunk(" one"), chunk(" two")), cut=True)
    call = bench.start(PATH, {"model": PUBLIC_MODEL, "prompt": PROMPT, "echo": True, "logprobs": 1, "stream": True})
    assert call.task is not None
    await call.task
    assert call.events[-1]["error"]["code"] == "upstream_failed"
    assert "".join(each["choices"][0]["text"] for each in call.events[:-1]) == PROMPT + " one two"
    record = bench.record(call)
    assert (record.outcome, record.tokens.output, record.estimated) == (Outcome.FAILED, 2, True)


@pytest.mark.asyncio
async def test_how_likely_a_prompt_was_is_told(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "openai", options=NATIVE)
    upstream.answer(orjson.dumps(completion("def fib", logprobs=LOGPROBS)))
    # OpenAI's type has no null where OpenAI itself, and so we, have one: nothing precedes the first token.
    call = bench.start(PATH, {"model": PUBLIC_MODEL, "prompt": "def", "echo": True, "logprobs": 2})
    assert call.task is not None
    await call.task
    assert call.json["choices"][0]["text"] == "def fib"
    told = call.json["choices"][0]["logprobs"]
    assert told["tokens"] == LOGPROBS["tokens"] and told["token_logprobs"] == LOGPROBS["token_logprobs"]
    assert told["top_logprobs"][1] == {" fib": -0.5, " f": -2.0} and told["text_offset"] == [0, 3]


@pytest.mark.asyncio
async def test_a_route_that_chats_is_passed_over_for_one_that_fills_the_gap(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    native = upstream.offer(bench, "openai", options=NATIVE)
    chats = msgspec.structs.replace(bench.target("sandbox-echo"), weight=10**9)
    bench.models[PUBLIC_MODEL] = offered(id=PUBLIC_MODEL, targets=(chats, native))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    upstream.answer(orjson.dumps(completion("x")))
    assert (await ask(bench, suffix=SUFFIX)).json["choices"][0]["text"] == "x"
    assert upstream.request.target == "/completions" and not bench.truth()


@pytest.mark.asyncio
async def test_guardrails_read_what_stands_behind_the_gap(bench: Bench, upstream: ScriptedUpstream) -> None:
    upstream.offer(bench, "openai", options=NATIVE)
    bench.limit(policy=policy(personal()))
    upstream.answer(orjson.dumps(completion("see " + MAIL)))
    call = await ask(bench, prompt=f"to {MAIL}", suffix=f"from {MAIL}")
    assert call.status == 200 and MAIL.encode() not in upstream.request.body + call.body
    assert "suffix" in upstream.request.json
