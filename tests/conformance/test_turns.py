"""What an upstream answered comes back to it with the next request, whichever dialect its caller speaks."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import orjson
import pytest
from hypothesis import given

from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.chat import ChatRequest, parse_chat
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.providers import PROVIDERS
from tests.conformance.said import UPSTREAMS, VIEWS, Answer, Part
from tests.conformance.test_answers import ANSWERS, EXAMPLES, dialects, finish
from tests.factories import TARGET, offered
from tests.upstream.bedrock_shapes import CREDENTIAL

SCHEMA: Final = {"type": "object"}
HELLO: Final = {"role": "user", "content": "hello"}
MORE: Final = {"role": "user", "content": "more"}
Ask = Callable[[dict[str, Any], Answer], ChatRequest]


def calls(answer: Answer) -> list[Part]:
    return [part for part in answer if part.kind == "call"]


def by_chat(told: dict[str, Any], answer: Answer) -> ChatRequest:
    results = [{"role": "tool", "tool_call_id": call.call_id, "content": "sun"} for call in calls(answer)]
    tools = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in "fg"]
    messages = [HELLO, {"role": "assistant", **told["message"]}, *results, MORE]
    return parse_chat(orjson.dumps({"model": "m", "messages": messages, "tools": tools}))


def by_messages(told: dict[str, Any], answer: Answer) -> ChatRequest:
    results = [{"type": "tool_result", "tool_use_id": call.call_id, "content": "sun"} for call in calls(answer)]
    tools = [{"name": name, "input_schema": SCHEMA} for name in "fg"]
    asked = {"role": "user", "content": [*results, {"type": "text", "text": "more"}]}
    messages = [HELLO, {"role": "assistant", "content": told["content"]}, asked]
    return parse_messages(orjson.dumps({"model": "m", "max_tokens": 9, "messages": messages, "tools": tools}))


def by_responses(told: dict[str, Any], answer: Answer) -> ChatRequest:
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls(answer)]
    tools = [{"type": "function", "name": name, "parameters": SCHEMA} for name in "fg"]
    items = [HELLO, *told["output"], *results, MORE]
    return parse_responses(orjson.dumps({"model": "m", "input": items, "tools": tools}))


CALLERS: Final[dict[str, Ask]] = {"chat": by_chat, "messages": by_messages, "responses": by_responses}


def sent(dialect: str, chat: ChatRequest, upstream_model: str = "claude-sonnet-4-5") -> Any:
    """The request that the upstream gets."""
    options = {"region": "us-east-1"} if dialect == "bedrock" else {}
    model = offered()
    target = msgspec.structs.replace(
        TARGET, dialect=dialect, options=with_defaults(dialect, options), api_key=CREDENTIAL,
        upstream_model="gemini-2.5-flash" if dialect == "gemini" else upstream_model,
    )  # fmt: skip
    chat.check_model(model)
    return orjson.loads(PROVIDERS[dialect].chat_request(chat, model, target, request_id="req_1").body)


def turn_of(dialect: str, body: Any) -> list[Part]:
    """The answer as it stands in the request: the turn between the two of the user."""
    if dialect == "gemini":
        return [_of_gemini(part) for content in body["contents"] if content["role"] == "model"
                for part in content["parts"]]  # fmt: skip
    if dialect == "openai-responses":
        return [part for item in body["input"] for part in _of_responses(item)]
    turns = [message for message in body["messages"] if message["role"] == "assistant"]
    if dialect == "openai":
        return [part for turn in turns for part in _of_openai(turn)]
    read = _of_anthropic if dialect == "anthropic" else _of_bedrock
    assert len(turns) <= 1
    return [read(block) for turn in turns for block in turn["content"]]


def _of_openai(message: dict[str, Any]) -> list[Part]:
    texts = [Part("text", message["content"])] if message.get("content") else []
    made = [(call["function"], call["id"]) for call in message.get("tool_calls", ())]
    return texts + [Part("call", each["name"], orjson.loads(each["arguments"]), call_id) for each, call_id in made]


def _of_responses(item: dict[str, Any]) -> list[Part]:
    if item["type"] == "function_call":
        return [Part("call", item["name"], orjson.loads(item["arguments"]), item["call_id"])]
    if item["type"] == "reasoning":
        return [Part("thought", item["summary"][0]["text"], signature=item["encrypted_content"])]
    return [Part("text", part["text"]) for part in item["content"]] if item.get("role") == "assistant" else []


def _of_anthropic(block: dict[str, Any]) -> Part:
    if block["type"] == "text":
        return Part("text", block["text"])
    if block["type"] == "thinking":
        return Part("thought", block["thinking"], signature=block["signature"])
    return Part("call", block["name"], block["input"], block["id"])


def _of_bedrock(block: dict[str, Any]) -> Part:
    if "text" in block:
        return Part("text", block["text"])
    if "toolUse" in block:
        return Part("call", block["toolUse"]["name"], block["toolUse"]["input"], block["toolUse"]["toolUseId"])
    thought = block["reasoningContent"]["reasoningText"]
    return Part("thought", thought["text"], signature=thought["signature"])


def _of_gemini(part: dict[str, Any]) -> Part:
    if "text" in part:
        return Part("text", part["text"])
    made = part["functionCall"]
    return Part("call", made["name"], made["args"], made["id"], part.get("thoughtSignature", ""))


def expected(dialect: str, caller: str, answer: Answer) -> list[Part]:
    """What should be in the next request: Google and OpenAI want no thoughts back, Chat Completions has no order."""
    has_thoughts = dialect in ("anthropic", "bedrock", "openai-responses")
    parts = [
        part._replace(signature=part.signature if part.kind == "thought" or dialect == "gemini" else "")
        if part.kind != "text" else Part("text", part.text)
        for part in answer if part.kind != "thought" or has_thoughts
    ]  # fmt: skip
    parts = [part._replace(call_id="") if part.kind == "thought" else part for part in parts]
    if caller == "chat" or dialect == "openai":
        parts.sort(key=lambda part: ["thought", "text", "call"].index(part.kind))
    return parts


def read(parts: list[Part], *, drops_blank: bool) -> list[Part]:
    """Parts with neighbouring texts in one, and blank ones left out, which Claude refuses."""
    made: list[Part] = []
    for part in parts:
        if made and made[-1].kind == part.kind == "text":
            made[-1] = Part("text", made[-1].text + part.text)
        else:
            made.append(part)
    return [part for part in made if part.kind != "text" or part.text.strip() or not drops_blank]


@dialects
@pytest.mark.parametrize("caller", CALLERS)
@EXAMPLES
@given(answer=ANSWERS)
def test_the_next_request_brings_back_what_was_said_in_its_order(dialect: str, caller: str, answer: Answer) -> None:
    whole = PROVIDERS[dialect].whole_answer(UPSTREAMS[dialect][0](answer, finish(answer, "stop")))
    body = sent(dialect, CALLERS[caller](VIEWS[caller].whole(whole), answer))
    drops_blank = dialect in ("anthropic", "bedrock")
    wanted = read(expected(dialect, caller, answer), drops_blank=drops_blank)
    assert read(turn_of(dialect, body), drops_blank=drops_blank) == wanted
