"""The sandbox's Responses API: OpenAI's own client, its types, the faults, and CRUN in front of it."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from crun.sandbox.truth import read_truth
from tests.dialects.orders import responses_order
from tests.dialects.typed import events_of, matches
from tests.sandbox.conftest import ECHO, Received, encode, receive

Ask = Callable[..., Received]
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
NAMED = {"type": "function", "name": "get_weather"}
FORMAT = {
    "type": "json_schema",
    "name": "age",
    "schema": {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]},
}


class Person(BaseModel):
    """What the parse helper makes of an answer."""

    name: str


@pytest.fixture(scope="module")
def client(sandbox: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=sandbox.url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def respond(sandbox: Any) -> Ask:
    """One request on a connection of its own."""

    def send(model: str, given: Any = ECHO, *, limit_s: float = 5.0, **fields: Any) -> Received:
        headers = fields.pop("headers", {})
        with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
            connection.sendall(encode({"model": model, "input": given, **fields}, headers, "/v1/responses"))
            return receive(connection, limit_s)

    return send


def test_openais_client_gets_answers_streams_objects_and_calls(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="sandbox-echo", input="one two three", instructions="be short")
    assert (answer.output_text, answer.status, answer.store) == ("one two three", "completed", False)  # type: ignore[attr-defined]  # its type lacks it
    assert answer.usage is not None and (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 3)
    with client.responses.stream(model="sandbox-echo", input="one two three") as stream:
        words = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert (words, stream.get_final_response().output_text) == (["one ", "two ", "three"], "one two three")
    parsed = client.responses.parse(model="sandbox-json", input="Who?", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    image: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": PNG, "detail": "auto"}]}]
    assert client.responses.create(model="sandbox-vision", input=image).output_text == "1 image: image/png, 70 bytes"
    given: Any = [{"role": "user", "content": [{"type": "input_text", "text": "How is Ulm?"}]}]
    with client.responses.stream(model="sandbox-tools", input=given, tools=[WEATHER]) as stream:
        (call,) = stream.get_final_response().output
    assert call.type == "function_call" and isinstance(orjson.loads(call.arguments)["city"], str)
    given += [call.model_dump(exclude_none=True, exclude={"parsed_arguments"})]
    given += [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}]
    second = client.responses.create(model="sandbox-tools", input=given, tools=[WEATHER])
    assert second.output_text == 'The tool answered: "sunny"'


def test_a_thought_is_told_as_it_was_asked_for_and_can_be_sent_back(client: openai.OpenAI) -> None:
    asked: Any = {"model": "sandbox-echo", "extra_body": {"sandbox": {"reasoning_tokens": 4, "cached_tokens": 1}}}
    bare = client.responses.create(input="one two", **asked).output[0]
    assert bare.type == "reasoning" and (bare.summary, bare.encrypted_content) == ([], None)
    told = client.responses.create(
        input="one two",
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
        **asked,
    )
    thought, message = told.output
    assert thought.type == "reasoning" and thought.summary[0].text == "I thought for 4 tokens."
    assert told.usage is not None
    assert (told.usage.input_tokens_details.cached_tokens, told.usage.output_tokens) == (1, 6)
    assert told.usage.output_tokens_details.reasoning_tokens == 4
    back: Any = [
        {"role": "user", "content": "one"},
        thought.model_dump(exclude_none=True),
        {"role": "user", "content": "x"},
    ]
    assert client.responses.create(model="sandbox-echo", input=back).output_text == "x"
    back[1]["encrypted_content"] = "gAAAA-of-somebody-else"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="sandbox-echo", input=back)
    assert (refused.value.code, refused.value.param) == ("invalid_encrypted_content", "input[1].encrypted_content")
    assert message.type == "message"


@pytest.mark.parametrize(
    ("model", "fields", "status"),
    [
        ("sandbox-echo", {}, "completed"),
        ("sandbox-echo", {"max_output_tokens": 2}, "incomplete"),
        ("sandbox-echo", {"max_output_tokens": 2, "sandbox": {"reasoning_tokens": 9}}, "incomplete"),
        ("sandbox-tools", {"tools": [WEATHER, {"type": "web_search"}], "tool_choice": "required"}, "completed"),
        ("sandbox-tools", {"tools": [WEATHER], "tool_choice": NAMED}, "completed"),
        ("sandbox-json", {"text": {"format": FORMAT}}, "completed"),
        (
            "sandbox-echo",
            {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
             "sandbox": {"reasoning_tokens": 3}},
            "completed",
        ),
    ],
)  # fmt: skip
def test_what_is_sent_is_what_openai_publishes(respond: Ask, model: str, fields: Any, status: str) -> None:
    whole = respond(model, **fields).json
    matches(Response, whole)
    events = list(events_of("/responses", respond(model, stream=True, **fields).body))
    for event in events:
        matches(ResponseStreamEvent, event)
    last = events[-1]["response"]
    texts = [part["text"] for item in last["output"] if item["type"] == "message" for part in item["content"]]
    responses_order([*events[:-1], {**events[-1], "response": {**last, "output_text": "".join(texts)}}])
    assert whole["status"] == last["status"] == status
    assert whole["usage"] == last["usage"]
    assert [item["type"] for item in whole["output"]] == [item["type"] for item in last["output"]]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"input": []}, 400, "input"),
        ({"input": 7}, 400, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, 400, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, 400, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404, "input[0]"),
        ({"tools": [{"type": "function"}]}, 400, "tools[0].name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "text.format.schema"),
        ({"model": "sandbox-json", "text": {"format": {**FORMAT, "schema": {"not": {}}}}}, 400, "text.format.schema"),
        ({"model": "sandbox-vision", "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:x"}]}]}, 400, "input"),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id"),
        ({"conversation": "conv_1"}, 404, "conversation"),
        ({"max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"sandbox": {"nonsense": 1}}, 400, "sandbox.nonsense"),
        ({"model": "nobody"}, 404, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(respond: Ask, fields: Any, status: int, param: str) -> None:
    asked = {"model": "sandbox-echo", "given": "x"} | {
        ("given" if name == "input" else name): fields[name] for name in fields
    }
    received = respond(**asked)
    assert (received.status, received.json["error"]["param"]) == (status, param)


def test_faults_act_on_this_dialect_too(respond: Ask, sandbox: Any) -> None:
    def kinds(name: str, **fields: Any) -> list[str]:
        received = respond(f"sandbox-fault-{name}", stream=True, **fields)
        events = [event for event in received.events if event.startswith(b"{") and event.endswith(b"}")]
        return [orjson.loads(event)["type"] for event in events if b"\xff" not in event]

    assert respond("sandbox-fault-429").status == 429
    assert kinds("cut-2").count("response.output_text.delta") == 2
    assert kinds("cut-2")[-1] == kinds("reset-3")[-1] == "response.output_text.delta"
    assert "response.completed" not in kinds("no-done")
    assert kinds("events-after-done")[-2:] == ["response.completed", "response.output_text.delta"]
    assert kinds("torn-crlf") == kinds("comments")
    broken = respond("sandbox-fault-error-event-2", stream=True)
    last = orjson.loads(broken.events[-1])
    matches(ResponseStreamEvent, last)
    assert (last["type"], last["sequence_number"]) == ("error", len(broken.events) - 1)
    assert respond("sandbox-fault-bad-json").body[-1:] != b"}"
    assert b'"text":"\xff' in respond("sandbox-fault-bad-utf8").body


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("no-usage", "nothing"), ("null-usage", None), ("zero-usage", (0, 0)), ("negative-usage", (-6, -6)),
        ("float-usage", (5.5, 5.5)), ("string-usage", ("5", "5")), ("huge-usage", (5, 10**18)), ("usage-twice", (5, 5)),
    ],
)  # fmt: skip
def test_usage_is_told_wrong_in_this_dialects_words(respond: Ask, fault: str, told: Any) -> None:
    for fields in ({}, {"stream": True}):
        received = respond(f"sandbox-fault-{fault}", **fields)
        response = orjson.loads(received.events[-1])["response"] if fields else received.json
        usage = response.get("usage", "nothing")
        assert (usage if not isinstance(usage, dict) else (usage["input_tokens"], usage["output_tokens"])) == told


def test_the_truth_is_logged_as_for_chats(respond: Ask, sandbox: Any, eventually: Callable[..., Any]) -> None:
    script = {"reasoning_tokens": 3, "cached_tokens": 1}
    for name, model, stream in (("whole", "echo", False), ("streamed", "echo", True), ("cut", "fault-cut-2", True)):
        headers = {"x-request-id": f"responses-{name}"}
        respond(f"sandbox-{model}", sandbox=script, stream=stream, headers=headers)

    def told(name: str) -> Any:
        entry = read_truth(sandbox.truth).get(f"responses-{name}")
        return None if entry is None or entry.outcome is None else entry

    for name in ("whole", "streamed"):
        entry = eventually(lambda name=name: told(name))
        assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("complete", 5, 8)
        assert (entry.reasoning_tokens, entry.cached_tokens, entry.usage_sent) == (3, 1, True)
    entry = eventually(lambda: told("cut"))
    assert (entry.outcome, entry.completion_tokens) == ("cut", 2)
