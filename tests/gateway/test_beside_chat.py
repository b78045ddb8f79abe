"""What of a request of /responses stands in no chat is held for, and estimated where nobody tells its usage."""

from typing import Any

import msgspec
import pytest

from apps.gateway.dialects.responses.request import ResponsesRequest, responses_request
from tests.factories import TARGET, offered

MODEL = offered()
NATIVE = offered(targets=(msgspec.structs.replace(TARGET, dialect="openai-responses"),))
LONG = "ä" * 20_000
SHELL = {"type": "local_shell_call_output", "id": "lsh_1", "output": LONG}
FUNCTION = {"type": "function", "name": "f", "description": LONG, "parameters": {"type": "object"}}
HELLO = {"role": "user", "content": "hello"}


def bound(*items: dict[str, Any], model: Any = NATIVE, **fields: Any) -> int:
    """The bound on the input where the text of the chat was counted, and no byte of these items came in the body."""
    asked = request(*items, **fields)
    asked.check_model(model)
    return asked.input_bound(10**6, image_tokens=5_000, text_tokens=2)


def request(*items: dict[str, Any], **fields: Any) -> ResponsesRequest:
    return responses_request({"model": "x", "input": [*items, HELLO], **fields}, size=60, earlier=len(items))


def test_items_that_stand_in_no_chat_are_held_for_where_a_route_gets_them() -> None:
    assert bound(SHELL) - bound() > len(LONG.encode())
    assert bound(SHELL, model=MODEL) == bound(model=MODEL)
    assert request(SHELL).input_estimate() == request().input_estimate()


def test_no_more_is_held_than_the_context_has() -> None:
    asked = request(SHELL)
    asked.check_model(NATIVE)
    assert asked.input_bound(9_000) == 9_000


def test_a_screenshot_counts_as_an_image_and_not_as_its_bytes() -> None:
    picture = {"type": "computer_screenshot", "image_url": "data:image/png;base64," + "A" * 50_000}
    seen = {"type": "computer_call_output", "call_id": "c", "output": picture}
    assert 5_000 < bound(seen) - bound() < 6_000
    asked = request(seen)
    asked.check_model(NATIVE)
    assert asked.images == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "apply_patch", "hint": LONG}]},
        {"tools": [FUNCTION, {**FUNCTION, "name": "g", "description": ""}], "tool_choice": {
            "type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}},
    ],
)  # fmt: skip
def test_tools_that_the_chat_does_not_have_are_held_for(fields: dict[str, Any]) -> None:
    assert bound(**fields) - bound() > len(LONG.encode())


def test_where_no_usage_is_told_they_are_estimated_too() -> None:
    plain, full = request(), request(SHELL)
    plain.check_model(NATIVE)
    full.check_model(NATIVE)
    assert full.input_estimate() - plain.input_estimate() > len(LONG.encode()) // 8
