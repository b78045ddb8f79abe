"""The official Anthropic SDK for Python against a running installation: only base URL and key are ours."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import ToolUseBlock
from pydantic import BaseModel

from tests.acceptance.installing import Installation
from tests.acceptance.upstream import fault_model

pytestmark = pytest.mark.installation
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a town",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


class Person(BaseModel):
    name: str


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[Anthropic]:
    base_url = installation.api.removesuffix("/v1")
    with Anthropic(base_url=base_url, api_key=installation.api_key, max_retries=0) as made:
        yield made


def _user(content: Any) -> Any:
    return [{"role": "user", "content": content}]


def test_an_answer_and_its_true_usage(client: Anthropic) -> None:
    answer = client.messages.create(model="truth-echo", max_tokens=50, messages=_user("Hello, CRUN, hello!"))
    assert (answer.content[0].type, answer.stop_reason, answer.model) == ("text", "end_turn", "truth-echo")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 3)


def test_a_stream_comes_word_by_word_and_ends_with_the_true_usage(client: Anthropic) -> None:
    with client.messages.stream(model="truth-echo", max_tokens=50, messages=_user("one two three")) as stream:
        words = list(stream.text_stream)
        final = stream.get_final_message()
    assert words == ["one ", "two ", "three"]
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 3)


def test_the_async_client_streams_raw_events(installation: Installation) -> None:
    async def ask() -> list[str]:
        base_url = installation.api.removesuffix("/v1")
        async with AsyncAnthropic(base_url=base_url, api_key=installation.api_key, max_retries=0) as client:
            stream = await client.messages.create(
                model="truth-echo", max_tokens=50, messages=_user("one two"), stream=True
            )
            return [event.type async for event in stream]

    assert asyncio.run(ask()) == [
        "message_start", "content_block_start", *["content_block_delta"] * 2, "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip


def test_the_async_clients_helpers(installation: Installation) -> None:
    @anthropic.beta_async_tool
    async def weather(town: str) -> str:
        """The weather of a town."""
        return f"sunny in {town}"

    async def ask() -> None:
        base_url = installation.api.removesuffix("/v1")
        async with AsyncAnthropic(base_url=base_url, api_key=installation.api_key, max_retries=2) as client:
            asked: Any = {"max_tokens": 99, "messages": _user("one two three")}
            async with client.messages.stream(model="truth-echo", **asked) as stream:
                words = [word async for word in stream.text_stream]
                assert (await stream.get_final_message()).usage.output_tokens == len(words) == 3
            parsed = await client.messages.parse(model="truth-json", output_format=Person, **asked)
            assert isinstance(parsed.parsed_output, Person)
            assert (await client.messages.count_tokens(model="truth-echo", messages=_user("one two"))).input_tokens > 1
            final = await client.beta.messages.tool_runner(model="truth-tools", tools=[weather], **asked).until_done()
            assert "sunny in" in final.content[0].text  # type: ignore[union-attr]  # it is text
            again = await client.messages.create(model=fault_model("flaky-1"), metadata={"user_id": "async"}, **asked)
            assert again.stop_reason == "end_turn"
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(model="nobody", **asked)

    asyncio.run(ask())


def test_a_conversation_with_a_tool(client: Anthropic) -> None:
    messages = _user("How is Ulm?")
    first = client.messages.create(model="truth-tools", max_tokens=99, messages=messages, tools=[WEATHER])
    (call,) = [block for block in first.content if isinstance(block, ToolUseBlock)]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny", "is_error": False}
    messages = [*messages, {"role": "assistant", "content": first.content}, *_user([result])]
    second = client.messages.create(model="truth-tools", max_tokens=99, messages=messages, tools=[WEATHER])
    assert "sunny" in second.content[0].text  # type: ignore[union-attr]  # it is text


def test_the_parse_helper(client: Anthropic) -> None:
    parsed = client.messages.parse(model="truth-json", max_tokens=99, messages=_user("Who?"), output_format=Person)
    assert isinstance(parsed.parsed_output, Person)
    asked: Any = {"model": "truth-json", "max_tokens": 99, "messages": _user("Who?"), "output_format": Person}
    with client.messages.stream(**asked) as stream:
        assert stream.get_final_message().parsed_output == parsed.parsed_output


def test_tokens_are_counted(client: Anthropic) -> None:
    assert client.messages.count_tokens(model="truth-echo", messages=_user("one two three")).input_tokens > 2


def test_errors_have_the_classes_of_the_sdk(client: Anthropic) -> None:
    for model, error in (
        ("nobody", anthropic.NotFoundError),
        (fault_model("400"), anthropic.BadRequestError),
        (fault_model("529"), anthropic.OverloadedError),
    ):
        with pytest.raises(error):
            client.messages.create(model=model, max_tokens=9, messages=_user("x"))
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="ak_wrong").messages.create(model="truth-echo", max_tokens=9, messages=_user("x"))


def test_a_broken_stream_raises(client: Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="upstream"),
        client.messages.stream(
            model=fault_model("cut-3"), max_tokens=99, messages=_user("one two three four five")
        ) as stream,
    ):
        list(stream.text_stream)


def test_a_failure_that_may_pass_is_tried_again(installation: Installation) -> None:
    base_url = installation.api.removesuffix("/v1")
    with Anthropic(base_url=base_url, api_key=installation.api_key, max_retries=2) as client:
        answer = client.messages.create(model=fault_model("flaky-1"), max_tokens=9, messages=_user("one"))
    assert answer.stop_reason == "end_turn"


def test_the_tool_runner_goes_on_until_the_model_has_answered(client: Anthropic) -> None:
    towns: list[str] = []

    @anthropic.beta_tool
    def weather(town: str) -> str:
        """The weather of a town."""
        towns.append(town)
        return "sunny"

    asked: Any = {"model": "truth-tools", "max_tokens": 99, "messages": _user("How is Ulm?"), "tools": [weather]}
    final = client.beta.messages.tool_runner(**asked).until_done()
    assert "sunny" in final.content[0].text  # type: ignore[union-attr]  # it is text
    streamed = [stream.get_final_message() for stream in client.beta.messages.tool_runner(**asked, stream=True)]
    assert [message.stop_reason for message in streamed] == ["tool_use", "end_turn"]
    assert len(towns) == 2


def test_an_image_and_a_document_are_read(client: Anthropic) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    seen = client.messages.create(model="truth-vision", max_tokens=99, messages=_user([image]))
    assert seen.content[0].text == "1 image: image/png, 70 bytes"  # type: ignore[union-attr]  # it is text
    words = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "four words of text"}}
    read = client.messages.create(model="truth-echo", max_tokens=99, messages=_user([words]))
    assert read.content[0].text == "four words of text"  # type: ignore[union-attr]  # it is text


def test_models_come_page_by_page(client: Anthropic) -> None:
    page = client.models.list(limit=2)
    assert len(page.data) == 2 and page.has_more and page.last_id == page.data[-1].id
    assert {"truth-echo", "truth-tools"} <= {model.id for model in client.models.list(limit=2)}
    assert client.models.retrieve("truth-echo").display_name


def test_the_key_may_come_as_a_bearer_token_beside_headers_of_agents(installation: Installation) -> None:
    base_url = installation.api.removesuffix("/v1")
    with Anthropic(base_url=base_url, auth_token=installation.api_key, api_key=None, max_retries=0) as bearer:
        raw = bearer.beta.messages.with_raw_response.create(
            model="truth-echo", max_tokens=9, messages=_user("one"), betas=["claude-code-20250219"],
            extra_headers={"x-app": "cli"},
        )  # fmt: skip
    assert raw.headers["request-id"] == raw.headers["x-crun-generation-id"] == raw.parse()._request_id
    assert raw.headers["x-crun-dropped-params"] == "anthropic-beta.claude-code-20250219"


def test_whoever_waits_too_long_and_asks_too_much_gets_the_sdks_errors(client: Anthropic) -> None:
    slow: Any = {"sandbox": {"first_byte_delay_ms": 20_000}}
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.5).messages.create(
            model="truth-echo", max_tokens=9, messages=_user("x"), extra_body=slow
        )
    with pytest.raises(anthropic.RequestTooLargeError):
        client.messages.create(model="truth-echo", max_tokens=9, messages=_user("x" * 2_100_000))
