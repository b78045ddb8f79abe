"""Whole answers and refusals as vendors and their servers really send them, each with its source, as clients of every
dialect see them, and what they cost."""

from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml

from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price, Target
from apps.gateway.answers.relay import completion_id
from apps.gateway.dialects.completions import text_completion
from apps.gateway.dialects.messages.answer import MessagesStream, messages_usage, whole_message
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.native import native_message
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.dialects.published import public_chat
from apps.gateway.dialects.responses.answer import begun_response, ended, output_of, responses_usage, whole_output
from apps.gateway.dialects.responses.native import Names, native_response
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.errors import GatewayError
from apps.gateway.metering.token_usage import read_usage, to_openai
from apps.gateway.providers import PROVIDERS
from apps.gateway.response_cache.assembly import StreamAssembly, as_stream
from apps.usage.contracts import TokenCounts
from tests.conformance.said import ID, REQUEST, VIEWS, events_of, relayed, seen
from tests.conformance.test_quirks import expected
from tests.conformance.test_turns import sent
from tests.conformance.told import told_streamed, told_whole
from tests.dialects.typed import is_published
from tests.upstream import anthropic_shapes, bedrock_shapes, eventstream
from tests.upstream.scripted import sse

CALLERS: Final = ("chat", "completions", "messages", "responses")
NATIVE: Final = {"messages": "anthropic", "responses": "openai-responses"}
PRICE: Final = Price(
    version_id=1, starts_at=0.0, input=1_000_000_000, cache_read=100_000_000, cache_write=1_250_000_000,
    cache_write_1h=2_000_000_000, output=5_000_000_000, reasoning=7_000_000_000,
)  # fmt: skip
"""In nano-dollars a token: input 1 000, 100 from a cache, 1 250 or 2 000 into one; output 5 000, thoughts 7 000."""
ENDPOINTS: Final = dict(zip(CALLERS, ("/chat/completions", "/completions", "/messages", "/responses"), strict=True))
ASKED: Final = parse_responses(orjson.dumps({
    "model": "m", "input": "x", "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
}))  # fmt: skip


def recordings(kind: str) -> dict[str, Any]:
    """Name -> recording, of those that are `told` or `refused`."""
    found = {}
    for path in sorted(Path(__file__).with_name("vendors").glob("*.yaml")):
        for name, recorded in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            assert recorded["source"].startswith("https://") and recorded["what"], (
                f"{path.stem}/{name} names its source"
            )
            if kind in recorded:
                found[f"{path.stem}/{name}"] = recorded
    return found


ANSWERS: Final = recordings("told")
REFUSALS: Final = recordings("refused")


def given(caller: str, recorded: dict[str, Any]) -> dict[str, Any]:
    """What the client gets."""
    body = orjson.dumps(recorded["answer"])
    answer = PROVIDERS[recorded["dialect"]].whole_answer(body)
    told = read_usage(answer["usage"], bound=2_000_000)
    assert told.tokens is not None and not told.violation, told
    tokens, cost = told.tokens, {"cost": cost_nanos(told.tokens, PRICE) / 1e9}
    is_native = NATIVE.get(caller) == recorded["dialect"]
    if caller == "messages":
        names = {"request_id": REQUEST, "model": "m"}
        blocks = Blocks(ID, shows_thoughts=True, stops=tuple(recorded.get("stops", ())))
        shown = native_message(orjson.loads(body), **names) if is_native else whole_message(answer, blocks, **names)
        return {**shown, "usage": {**messages_usage(tokens), **cost}}
    if caller == "responses":
        begun = begun_response(ASKED, request_id=REQUEST, model="m")
        usage = {**responses_usage(tokens), **cost}
        if is_native:
            return native_response(orjson.loads(body), begun, Names(REQUEST), usage=usage, service_tier="")
        output = output_of(ASKED, REQUEST)
        whole_output(answer, output)
        return ended(begun, output, usage, service_tier="")
    usage = {**to_openai(tokens), **cost}
    if caller == "completions":
        return {**text_completion(answer, request_id=REQUEST, model="m", echoed=""), "usage": usage}
    return public_chat({"created": 1, **answer}, completion_id=completion_id(REQUEST), model="m", usage=usage)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("name", ANSWERS)
def test_every_client_understands_a_whole_answer(name: str, caller: str) -> None:
    recorded = ANSWERS[name]
    body, told = orjson.dumps(given(caller, recorded)), recorded["told"]
    is_published(f"/api/v1{ENDPOINTS[caller]}", 200, {}, body)
    read, tokens = told_whole(caller, body), TokenCounts(**told["usage"])
    assert read._replace(tokens=(0, 0), cost=0.0) == expected(caller, told), body
    assert read.tokens == (tokens.all_input, tokens.all_output)
    assert round(read.cost * 1e9) == told["cost"], "in nano-dollars, by the vendor's own formula"
    if signature := told.get("signature"):
        carried = (signature, "crun1.", "encrypted_content")
        assert caller == "completions" or any(text in body.decode() for text in carried)
    if caller == "messages" and "stops" in recorded:
        answer = orjson.loads(body)
        met = told.get("met")
        assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence" if met else "end_turn", met)
    for secret in recorded.get("hidden", ()):
        assert secret.encode() not in body, "whose answer it is stays here"


@pytest.mark.parametrize("name", ANSWERS)
def test_the_buckets_are_those_that_the_vendor_told(name: str) -> None:
    recorded = ANSWERS[name]
    answer = PROVIDERS[recorded["dialect"]].whole_answer(orjson.dumps(recorded["answer"]))
    told = read_usage(answer["usage"], bound=2_000_000)
    assert (told.tokens, told.violation) == (TokenCounts(**recorded["told"]["usage"]), "")


TARGET: Final = Target("p", "openai", "https://up.test/v1", "secret-model", 1, "sk-secret-secret")


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_means_the_same_whoever_says_it(name: str) -> None:
    recorded = REFUSALS[name]
    provider, body = PROVIDERS[recorded["dialect"]], orjson.dumps(recorded["answer"])
    if recorded["status"] == 200:
        with pytest.raises((GatewayError, ValueError)) as raised:
            provider.whole_answer(body)
        failure = raised.value
    else:
        failure = provider.failure(recorded["status"], None, body, target=TARGET, model="m")
    if "code" in recorded["refused"]:
        assert isinstance(failure, GatewayError)
        assert (failure.kind.status, failure.code) == (recorded["refused"]["status"], recorded["refused"]["code"])
        assert recorded["refused"].get("says", "") in failure.message
        assert failure.param == recorded["refused"].get("param", failure.param)
    assert "secret" not in str(failure)


STOPPED: Final = {
    "anthropic": b"".join(
        anthropic_shapes.sse_events(
            {"type": "message_start", "message": {"usage": {"input_tokens": 12, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "Well"}},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"},
                "usage": {"output_tokens": 7},
            },
            {"type": "message_stop"},
        )
    ),
    "bedrock": b"".join((
        eventstream.message("messageStart", {"role": "assistant"}),
        bedrock_shapes.delta(0, text="Well"),
        bedrock_shapes.stop(0),
        eventstream.message(
            "messageStop",
            {"stopReason": "stop_sequence", "additionalModelResponseFields": {"delta": {"stop_sequence": "END"}}},
        ),
        bedrock_shapes.METADATA,
    )),
    **{
        name: b"".join(
            sse(
                {"choices": [{"index": 0, "delta": {"content": "Well"}, "finish_reason": None, field: None}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", field: "END"}]},
                "[DONE]",
            )
        )
        for name, field in {"vLLM": "stop_reason", "SGLang": "matched_stop"}.items()
    },
}  # fmt: skip
"""Who tells which stop sequence it met -> such a stream."""


@pytest.mark.parametrize("vendor", STOPPED)
def test_the_stop_sequence_that_was_met_is_told_in_a_stream_too(vendor: str) -> None:
    blocks = relayed(vendor if vendor in PROVIDERS else "openai", [STOPPED[vendor]])
    shown = [choice for event in events_of(b"".join(blocks))[:-1] for choice in event["choices"]]
    assert [choice.get("stop_reason") for choice in shown if "stop_reason" in choice] == ["END"]
    assembly = StreamAssembly()
    for block in blocks:
        assembly.add(block)
    again = relayed("openai", [as_stream({**(assembly.answer(1) or {}), "usage": {}})])
    for told in (blocks, again):
        stream = MessagesStream(
            Blocks(ID, shows_thoughts=True, stops=("STOP", "END")),
            request_id=REQUEST,
            model="m",
            opening={},
            usage=dict,
        )
        ending = events_of(b"".join(map(stream.feed, told)))[-2]
        assert ending["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}, "from the cache, too"


@pytest.mark.parametrize(("model", "asks"), [("anthropic.claude-sonnet-4-5", True), ("amazon.nova-pro", False)])
def test_bedrock_is_asked_for_the_stop_sequence_where_it_can_tell(model: str, asks: bool) -> None:
    for stops in ([], ["END"]):
        asked = parse_messages(orjson.dumps({
            "model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], "stop_sequences": stops,
        }))  # fmt: skip
        request = sent("bedrock", asked, model)
        assert ("additionalModelResponseFieldPaths" in request) is (asks and bool(stops))


@pytest.mark.parametrize("caller", CALLERS)
def test_a_tool_that_anthropic_ran_is_no_call_of_the_callers(caller: str) -> None:
    used = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    own = {"type": "tool_use", "id": "toolu_1", "name": "time", "input": {}}
    content = (used, found, anthropic_shapes.text("Well"), own)
    whole = PROVIDERS["anthropic"].whole_answer(anthropic_shapes.message(*content, stop_reason="tool_use"))
    blocks = relayed("anthropic", [b"".join(anthropic_shapes.streamed(*content, stop_reason="tool_use"))])
    read = told_streamed(caller, seen(caller, blocks))
    assert (read.text, read.calls) == ("Well", () if caller == "completions" else (("time", {}),))
    assert VIEWS[caller].folded(events_of(seen(caller, blocks))) == VIEWS[caller].whole(whole)
