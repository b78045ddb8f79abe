"""Answers of OpenAI's Responses API, whole and as events, in the shapes of public recordings.

They have the shapes of the examples in the reference of the Responses API (its OpenAPI document, openai/openai-openapi,
MIT: "Create a model response" with text, functions and reasoning, and "Streaming events") and of the types in
openai/openai-python (Apache-2.0), src/openai/types/responses. `keepalive` is what the service sends in long silence.
The words and numbers are our own."""

from typing import Any

import orjson

from tests.upstream.scripted import UPSTREAM_MODEL

RESPONSE_ID = "resp_0a67c9fdcecf488190bdd9a0409de3a1ec"
USAGE = {
    "input_tokens": 12, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}, "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 21,
}  # fmt: skip
KEEPALIVE = {"type": "keepalive", "sequence_number": 3}
THOUGHT = {
    "id": "rs_0a1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Two and two, ähm…"}],
    "encrypted_content": "gAAAAABo-sealed-one==",
}  # fmt: skip
CALL = {
    "id": "fc_0a2", "type": "function_call", "status": "completed", "arguments": '{"town":"Köln","days":2}',
    "call_id": "call_0aNRLab", "name": "weather",
}  # fmt: skip
BARE_CALL = CALL | {"id": "fc_0a3", "arguments": "{}", "call_id": "call_0aBare", "name": "now"}
CUSTOM_CALL = {
    "id": "ctc_0a4", "type": "custom_tool_call", "status": "completed", "call_id": "call_0aCus", "name": "patch",
    "input": "*** Begin Patch\n+ \"ä\"\n",
}  # fmt: skip


def text(said: str, **more: Any) -> dict[str, Any]:
    """A message with one text."""
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": [], **more}
    return {"id": "msg_0a5", "type": "message", "status": "completed", "content": [part], "role": "assistant"}


def refusal(said: str) -> dict[str, Any]:
    """A message that refuses."""
    return text("") | {"content": [{"type": "refusal", "refusal": said}]}


def response(*output: dict[str, Any], status: str = "completed", usage: Any = USAGE, **more: Any) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": RESPONSE_ID, "object": "response", "created_at": 1741476777, "status": status, "background": False,
        "completed_at": 1741476778 if status == "completed" else None, "error": None, "incomplete_details": None,
        "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "model": UPSTREAM_MODEL,
        "output": list(output), "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None,
        "reasoning": {"effort": "medium", "summary": "detailed"}, "safety_identifier": None, "service_tier": "default",
        "store": False, "temperature": 1.0, "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 0.98, "truncation": "disabled", "usage": usage,
        "user": None, "metadata": {}, **more,
    }  # fmt: skip


def whole(*output: dict[str, Any], **fields: Any) -> bytes:
    """The same on the wire."""
    return orjson.dumps(response(*output, **fields))


def incomplete(reason: str, *output: dict[str, Any]) -> dict[str, Any]:
    """What is different in an answer that was cut short."""
    cut = [item | {"status": "incomplete"} if "status" in item else item for item in output]
    return response(*cut, status="incomplete", incomplete_details={"reason": reason})


def events(*output: dict[str, Any], end: dict[str, Any] | None = None, cut: int = 5) -> list[dict[str, Any]]:
    """The answer as it is streamed, its strings in pieces of `cut` characters. `end` is the response it ends with."""
    begun = response(status="in_progress", usage=None)
    said: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": begun} for kind in ("created", "in_progress")
    ]
    end = end or response(*output)
    for place, item in enumerate(end["output"]):
        said += _item(place, item, cut)
        said += [KEEPALIVE] if place == 0 else []
    said.append({"type": f"response.{end['status']}", "response": end})
    return [{"type": event["type"], "sequence_number": number, **event} for number, event in enumerate(said)]


def sse_events(*said: dict[str, Any]) -> list[bytes]:
    """Events as they stand on the wire, each a piece."""
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), orjson.dumps(each)) for each in said]


def streamed(*output: dict[str, Any], **fields: Any) -> list[bytes]:
    """A whole stream, an event a piece."""
    return sse_events(*events(*output, **fields))


def _item(place: int, item: dict[str, Any], cut: int) -> list[dict[str, Any]]:
    at = {"output_index": place}
    within = {"item_id": item["id"], **at}
    kind = item["type"]
    empty = {name: "" if name in ("arguments", "input") else value for name, value in item.items()}
    empty |= {"status": "in_progress"} if "status" in item else {}
    if kind == "message":
        empty |= {"content": []}
        inner = [each for index, part in enumerate(item["content"]) for each in _part(within, index, part, cut)]
    elif kind == "reasoning":
        empty = {"id": item["id"], "type": kind, "summary": []}
        inner = [each for index, part in enumerate(item["summary"]) for each in _summary(within, index, part, cut)]
    else:
        field, name = (
            ("input", "custom_tool_call_input")
            if kind == "custom_tool_call"
            else ("arguments", "function_call_arguments")
        )
        pieces = _pieces(item[field], cut)
        inner = [{"type": f"response.{name}.delta", **within, "delta": piece, "obfuscation": "x1"} for piece in pieces]
        inner.append({"type": f"response.{name}.done", **within, field: item[field]})
    return [
        {"type": "response.output_item.added", **at, "item": empty},
        *inner,
        {"type": "response.output_item.done", **at, "item": item},
    ]


def _part(within: dict[str, Any], index: int, part: dict[str, Any], cut: int) -> list[dict[str, Any]]:
    at = {**within, "content_index": index}
    kind, field = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
    more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
    pieces = _pieces(part[field], cut)
    return [
        {"type": "response.content_part.added", **at, "part": {**part, field: ""}},
        *({"type": f"response.{kind}.delta", **at, "delta": piece, **more, "obfuscation": "aB"} for piece in pieces),
        {"type": f"response.{kind}.done", **at, field: part[field], **more},
        {"type": "response.content_part.done", **at, "part": part},
    ]


def _summary(within: dict[str, Any], index: int, part: dict[str, Any], cut: int) -> list[dict[str, Any]]:
    at, kind = {**within, "summary_index": index}, "response.reasoning_summary"
    return [
        {"type": f"{kind}_part.added", **at, "part": {**part, "text": ""}},
        *({"type": f"{kind}_text.delta", **at, "delta": piece} for piece in _pieces(part["text"], cut)),
        {"type": f"{kind}_text.done", **at, "text": part["text"]},
        {"type": f"{kind}_part.done", **at, "part": part},
    ]


def _pieces(whole: str, cut: int) -> list[str]:
    return [whole[start : start + cut] for start in range(0, len(whole), cut)]
