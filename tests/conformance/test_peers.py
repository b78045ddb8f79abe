"""What gateways like this one are known to get wrong, each with its source: proved not to happen here, for every
dialect of upstreams before every one of callers."""

import re
from itertools import product
from typing import Any, Final

import orjson
import pytest

from apps.gateway.dialects.chat import parse_chat
from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.dialects.messages.answer import messages_usage
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.dialects.responses.answer import responses_usage
from apps.gateway.metering.token_usage import read_usage, to_openai
from apps.gateway.providers import PROVIDERS
from apps.usage.contracts import TokenCounts
from tests.conformance.answered import ANSWERS
from tests.conformance.crossing import TOKENS
from tests.conformance.said import UPSTREAMS, VIEWS, Answer, Part, events_of, relayed, seen
from tests.conformance.test_answers import finish, finished
from tests.conformance.test_turns import CALLERS, sent
from tests.conformance.told import Told, told_streamed

DIALECTS: Final = [dialect for dialect in UPSTREAMS if dialect != "azure"]
"""Azure's answers are OpenAI's."""
IN_LINES: Final = [dialect for dialect in DIALECTS if dialect != "bedrock"]
"""Bedrock's streams are no text."""
BARE: Final = Part("call", "time", {}, "c1", "c2ln")
FULL: Final = Part("call", "weather", {"town": "Ulm 😀"}, "c2", "c2ln")
THOUGHT: Final = Part("thought", "Let me think.", signature="c2ln")
every_pair = pytest.mark.parametrize(("dialect", "caller"), list(product(DIALECTS, VIEWS)))


def streamed(dialect: str, answer: Answer, *, cut: int = 3) -> bytes:
    return UPSTREAMS[dialect][1](answer, finish(answer, "stop"), cut)


def understood(dialect: str, caller: str, raw: bytes) -> Told:
    return told_streamed(caller, seen(caller, relayed(dialect, [raw])))


def said(read: Told) -> tuple[str, tuple[tuple[str, Any], ...]]:
    return read.text, read.calls


@every_pair
def test_calls_without_arguments_do_not_vanish(dialect: str, caller: str) -> None:
    """https://github.com/BerriAI/litellm/issues/25561, https://github.com/BerriAI/litellm/issues/29491"""
    answer = (BARE, BARE._replace(call_id="c3"), FULL)
    read = understood(dialect, caller, streamed(dialect, answer))
    calls = (("time", {}), ("time", {}), ("weather", {"town": "Ulm 😀"}))
    assert read.calls == (() if caller == "completions" else calls)


@every_pair
def test_a_call_alone_brings_no_empty_text_before_it(dialect: str, caller: str) -> None:
    """https://github.com/BerriAI/litellm/issues/25561"""
    body = seen(caller, relayed(dialect, [streamed(dialect, (FULL,))]))
    if caller == "messages":
        begun = [event["content_block"] for event in events_of(body) if event["type"] == "content_block_start"]
        assert [block["type"] for block in begun if block["type"] != "thinking"] == ["tool_use"]
    elif caller == "responses":
        begun = [event["item"]["type"] for event in events_of(body) if event["type"] == "response.output_item.added"]
        assert [kind for kind in begun if kind != "reasoning"] == ["function_call"]
    assert told_streamed(caller, body).text == ""


@every_pair
@pytest.mark.parametrize("cut", [1, 2, 1_000])
def test_the_first_characters_of_a_stream_are_not_cut(dialect: str, caller: str, cut: int) -> None:
    """https://github.com/vllm-project/vllm/pull/36944: what comes beside the role, or in the first event of a block"""
    read = understood(dialect, caller, streamed(dialect, (Part("text", '"W😀ell"'),), cut=cut))
    assert (read.text, read.reason) == ('"W😀ell"', "stop")


@every_pair
def test_what_caches_read_and_wrote_is_told_at_the_end(dialect: str, caller: str) -> None:
    """https://github.com/BerriAI/litellm/issues/31069, https://github.com/BerriAI/litellm/issues/5364"""
    script = ANSWERS[dialect].rich[1]
    usage = events_of(relayed(dialect, script.pieces)[-1])[-2]["usage"]
    tokens, wanted = read_usage(usage, bound=10_000).tokens, TOKENS[dialect]
    assert tokens is not None and tokens.cache_read == wanted.cache_read > 0
    written = wanted.cache_write + wanted.cache_write_1h
    assert tokens.cache_write + tokens.cache_write_1h == written
    if caller == "messages":
        shown = messages_usage(wanted)
        assert (shown["cache_read_input_tokens"], shown["cache_creation_input_tokens"]) == (wanted.cache_read, written)
        assert shown["input_tokens"] + wanted.cache_read + written == wanted.all_input, "no token twice"
    elif caller == "responses":
        assert responses_usage(wanted)["input_tokens_details"]["cached_tokens"] == wanted.cache_read
    else:
        assert to_openai(wanted)["prompt_tokens_details"]["cached_tokens"] == wanted.cache_read


@every_pair
def test_a_broken_upstream_has_no_clean_end(dialect: str, caller: str) -> None:
    """https://github.com/Portkey-AI/gateway/issues/1797"""
    whole = streamed(dialect, (Part("text", "Well done."), FULL))
    body = seen(caller, relayed(dialect, [whole[: finished(dialect, whole)]]))
    assert told_streamed(caller, body).reason == "error"
    assert not any(map(VIEWS[caller].is_last, events_of(body)[:-1])) and b"[DONE]" not in body


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("dialect", ["anthropic", "bedrock", "openai-responses", "gemini"])
def test_signatures_of_a_stream_come_back_with_the_next_turn(dialect: str, caller: str) -> None:
    """https://github.com/google/adk-python/pull/5437, https://github.com/agentjido/req_llm/issues/626"""
    answer = (THOUGHT, Part("text", "I look."), FULL._replace(text="f"))
    told = VIEWS[caller].folded(events_of(seen(caller, relayed(dialect, [streamed(dialect, answer)]))))
    body = orjson.dumps(sent(dialect, CALLERS[caller](told, answer))).decode()
    assert body.count("c2ln") == 1, body


MARK: Final = {"type": "ephemeral"}
MARKED: Final = {"type": "text", "text": "Be brief.", "cache_control": MARK}


@pytest.mark.parametrize(("dialect", "word"), [("anthropic", "cache_control"), ("bedrock", "cachePoint")])
@pytest.mark.parametrize("caller", ["chat", "messages"])
def test_marks_for_the_cache_are_not_stripped(caller: str, dialect: str, word: str) -> None:
    """https://github.com/onecli/onecli/issues/404; callers of Responses and Completions have no word for them"""
    if caller == "messages":
        asked = parse_messages(orjson.dumps({
            "model": "m", "max_tokens": 9, "system": [MARKED], "messages": [{"role": "user", "content": [MARKED]}],
            "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": MARK}],
        }))  # fmt: skip
        assert orjson.dumps(sent(dialect, asked)).decode().count(word) == 3
        return
    function = {"type": "function", "function": {"name": "f"}, "cache_control": MARK}
    chat = parse_chat(orjson.dumps({
        "model": "m", "messages": [{"role": "system", "content": [MARKED]}, {"role": "user", "content": [MARKED]}],
        "tools": [function],
    }))  # fmt: skip
    assert orjson.dumps(sent(dialect, chat)).decode().count(word) == 3


@pytest.mark.parametrize("caller", VIEWS)
@pytest.mark.parametrize("dialect", IN_LINES)
@pytest.mark.parametrize("noise", [b"data: {oops\n\n", b": OPENROUTER PROCESSING\n\n", b"event: ping\n\n", b"\n\n"])
def test_a_line_that_says_nothing_does_not_spoil_a_good_stream(dialect: str, caller: str, noise: bytes) -> None:
    """https://github.com/BerriAI/litellm/issues/40404"""
    raw = streamed(dialect, (Part("text", "Well done."), FULL))
    noisy = raw.replace(b"\n\n", b"\n\n" + noise)
    assert said(understood(dialect, caller, noisy)) == said(understood(dialect, caller, raw))


@pytest.mark.parametrize("caller", VIEWS)
@pytest.mark.parametrize("dialect", IN_LINES)
def test_other_line_ends_and_no_space_are_the_same_stream(dialect: str, caller: str) -> None:
    """The rules for server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html"""
    raw = streamed(dialect, (Part("text", "Well done."), FULL))
    for other in (raw.replace(b"\n", b"\r\n"), re.sub(rb"(?m)^(data|event): ", rb"\1:", raw)):
        assert understood(dialect, caller, other) == understood(dialect, caller, raw)


ZERO: Final = {
    "openai": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "openai-responses": {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": {}},
    "anthropic": {"input_tokens": 0, "output_tokens": 0},
    "gemini": {"promptTokenCount": 0, "totalTokenCount": 0},
    "bedrock": {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
}


@pytest.mark.parametrize("dialect", ZERO)
def test_zero_is_a_statement_and_no_missing_usage(dialect: str) -> None:
    """https://github.com/BerriAI/litellm/issues/37992"""
    assert read_usage(ZERO[dialect], bound=9).tokens == TokenCounts()


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_text_of_an_error_is_no_output(dialect: str) -> None:
    """https://github.com/QuantumNous/new-api/issues/5288"""
    counts = []
    for script in (ANSWERS[dialect].torn, ANSWERS[dialect].failing):
        chat = ChatStream(completion_id="c", model="m", choices=1, token_bound=9_999)
        translator = PROVIDERS[dialect].translator()
        for piece in script.pieces:
            chat.feed(translator.feed(piece) if translator is not None else piece)
        chat.feed(translator.end() if translator is not None else b"")
        chat.end()
        assert chat.failure is not None
        counts.append(chat.output_count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "gemini"])
def test_usage_that_is_told_again_is_not_added_up(dialect: str) -> None:
    """https://github.com/vllm-project/vllm/issues/7262: snapshots, of which the last one counts"""
    raw = streamed(dialect, (Part("text", "Well done."),))
    blocks = raw.split(b"\n\n")
    again = b"\n\n".join([block for each in blocks for block in ([each, each] if b"sage" in each else [each])])
    once, twice = (events_of(relayed(dialect, [told])[-1])[-2]["usage"] for told in (raw, again))
    assert once == twice and once["completion_tokens"] > 0
