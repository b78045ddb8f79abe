"""Addresses in requests of Responses and Messages: in every place that goes on to some upstream, all of the corpus."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import orjson
import pytest

from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.errors import GatewayError
from tests.factories import TARGET, offered
from tests.security.addresses import NAMES, corpus

NATIVE = msgspec.structs.replace(TARGET, dialect="openai-responses")
MODEL = offered(targets=(NATIVE,), input_modalities=("text", "image", "file", "audio", "video"))
GOOD = ["https://example.com/a.png?x=1", "data:image/png;base64,AAAA", *(f"https://{name}/x.png" for name in NAMES)]
Place = Callable[[str], dict[str, Any]]


def said(part: Callable[[str], Any], url: str) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": [part(url)]}]}


def came_of(kind: str, output: Callable[[str], Any], url: str) -> dict[str, Any]:
    """An output item behind the call that it belongs to."""
    call = {"type": kind, "call_id": "c", "name": "f", "arguments": "{}", "input": "x", "id": "x_1"}
    return {"input": [call, {"type": f"{kind}_output", "call_id": "c", "output": output(url)}]}


def found(kind: str, output: Callable[[str], Any], url: str) -> dict[str, Any]:
    """The same for what stands in no chat."""
    return {"input": [{"role": "user", "content": "x"}, {"type": kind, "id": "x_1", "output": output(url)}]}


def image(url: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def file(url: str) -> dict[str, Any]:
    return {"type": "input_file", "file_url": url}


def tool(fields: Callable[[str], Any], url: str) -> dict[str, Any]:
    return {"input": "x", "tools": [fields(url)]}


RESPONSES: dict[str, Place] = {
    "an image": partial(said, image),
    "a file": partial(said, file),
    "an image that a function found": partial(came_of, "function_call", lambda url: [image(url)]),
    "a file that a function found": partial(came_of, "function_call", lambda url: [file(url)]),
    "an image of a custom tool": partial(came_of, "custom_tool_call", lambda url: [image(url)]),
    "a screenshot": partial(
        found, "computer_call_output", lambda url: {"type": "computer_screenshot", "image_url": url}
    ),
    "what a shell said": partial(found, "local_shell_call_output", lambda url: [image(url)]),
    "a server of tools": partial(tool, lambda url: {"type": "mcp", "server_label": "m", "server_url": url}),
    "a mask": partial(tool, lambda url: {"type": "image_generation", "input_image_mask": {"image_url": url}}),
}


def block(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, "source": {"type": "url", "url": url}}


def turn(kind: str, url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block(kind, url)]}]}


def result(kind: str, url: str) -> dict[str, Any]:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    answer = {"type": "tool_result", "tool_use_id": "t", "content": [block(kind, url)]}
    return {"messages": [{"role": "assistant", "content": [call]}, {"role": "user", "content": [answer]}]}


def document(url: str) -> dict[str, Any]:
    inner = {"type": "document", "source": {"type": "content", "content": [block("image", url)]}}
    return {"messages": [{"role": "user", "content": [inner]}]}


MESSAGES: dict[str, Place] = {
    **{f"{name} of a turn": partial(turn, name) for name in ("image", "document", "video", "hologram")},
    **{f"{name} of a result": partial(result, name) for name in ("image", "document", "video", "hologram")},
    "an image within a document": document,
}


def is_refused(place: Place, url: str, *, is_messages: bool) -> bool:
    body = orjson.dumps({"model": "m", "max_tokens": 9, **place(url)})
    try:
        asked = parse_messages(body, ()) if is_messages else parse_responses(body.replace(b'"max_tokens":9,', b""))
        asked.check_model(MODEL)
    except GatewayError as error:
        return error.kind.status == 400 and bool(error.param)
    return False


@pytest.mark.parametrize("name", [*RESPONSES, *MESSAGES])
def test_no_address_of_the_corpus_goes_on_from_any_place(name: str) -> None:
    place = RESPONSES.get(name) or MESSAGES[name]
    refused = partial(is_refused, place, is_messages=name in MESSAGES)
    bad = [url.replace("{port}", "8443") for url in corpus()]
    assert [url for url in bad if not refused(url)] == [] and len(bad) >= 120
    assert [url for url in GOOD if url.startswith("https:") and refused(url)] == []
