"""One answer in the words of each vendor, whole and streamed, and what each kind of client sees of it. Pure."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.dialects.completions import CompletionsStream, text_completion
from apps.gateway.dialects.messages.answer import MessagesStream, messages_usage, whole_message
from apps.gateway.dialects.messages.blocks import Blocks
from apps.gateway.dialects.messages.blocks import folded as folded_blocks
from apps.gateway.dialects.responses.answer import (
    ResponsesStream,
    begun_response,
    ended,
    output_of,
    responses_usage,
    whole_output,
)
from apps.gateway.dialects.responses.request import parse_responses
from apps.gateway.dialects.sse import EventSplitter
from apps.gateway.metering.token_usage import to_openai
from apps.gateway.providers import PROVIDERS
from apps.usage.contracts import TokenCounts
from tests.upstream import anthropic_shapes, bedrock_shapes, gemini_shapes, responses_shapes
from tests.upstream.eventstream import message as bedrock_message
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, sse
from tests.upstream.scripted import folded as folded_chat

REQUEST: Final = "req_0123456789abcdef0123456789abcdef"
ID: Final = REQUEST.removeprefix("req_")
USAGE: Final = TokenCounts(input=3, output=4)


OPENAI_USAGE: Final = {
    "prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21, "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip
_ANTHROPIC_USAGE: Final = {
    **anthropic_shapes.USAGE, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2,
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 1},
}  # fmt: skip


class Part(NamedTuple):
    """A thought, a text or a call of an answer."""

    kind: str
    text: str = ""
    """What is thought or said, or the name of the tool."""
    arguments: dict[str, Any] | None = None
    call_id: str = ""
    signature: str = ""


Answer = tuple[Part, ...]


def _openai_message(answer: Answer) -> dict[str, Any]:
    texts = {kind: "".join(part.text for part in answer if part.kind == kind) for kind in ("thought", "text")}
    calls = [
        {"id": part.call_id, "type": "function",
         "function": {"name": part.text, "arguments": orjson.dumps(part.arguments).decode()}}
        for part in answer if part.kind == "call"
    ]  # fmt: skip
    thought = {"reasoning_content": texts["thought"]} if texts["thought"] else {}
    return {"role": "assistant", "content": texts["text"] or None, **thought} | ({"tool_calls": calls} if calls else {})


def _openai_whole(answer: Answer, reason: str) -> bytes:
    choice = {"index": 0, "message": _openai_message(answer), "finish_reason": reason}
    head = {"id": "chatcmpl-up", "object": "chat.completion", "created": 1, "model": UPSTREAM_MODEL}
    return orjson.dumps({**head, "choices": [choice], "usage": OPENAI_USAGE})


def _openai_stream(answer: Answer, reason: str, cut: int) -> bytes:
    message = _openai_message(answer)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    for name in ("reasoning_content", "content"):
        deltas += [{name: piece} for piece in _cut(message.get(name) or "", cut)]
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        deltas.append({"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in _cut(arguments, cut)
        ]
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": UPSTREAM_MODEL}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    chunks.append({**head, "choices": [], "usage": OPENAI_USAGE})
    return b"".join(sse(*chunks, "[DONE]"))


_ANTHROPIC_REASONS: Final = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _anthropic_blocks(answer: Answer) -> list[dict[str, Any]]:
    return [
        anthropic_shapes.text(part.text) if part.kind == "text"
        else {"type": "thinking", "thinking": part.text, "signature": part.signature} if part.kind == "thought"
        else {"type": "tool_use", "id": part.call_id, "name": part.text, "input": part.arguments}
        for part in answer
    ]  # fmt: skip


def _anthropic_whole(answer: Answer, reason: str) -> bytes:
    blocks = _anthropic_blocks(answer)
    return anthropic_shapes.message(*blocks, stop_reason=_ANTHROPIC_REASONS[reason], usage=_ANTHROPIC_USAGE)


def _anthropic_stream(answer: Answer, reason: str, cut: int) -> bytes:
    blocks = _anthropic_blocks(answer)
    opened = {**_ANTHROPIC_USAGE, "output_tokens": 1}
    return b"".join(anthropic_shapes.streamed(*blocks, stop_reason=_ANTHROPIC_REASONS[reason], opened=opened, cut=cut))


_GEMINI_REASONS: Final = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP"}


def _gemini_part(part: Part) -> dict[str, Any]:
    if part.kind == "call":
        called = {"id": part.call_id, "name": part.text, "args": part.arguments}
        return {"functionCall": called} | ({"thoughtSignature": part.signature} if part.signature else {})
    return {"text": part.text} | ({"thought": True} if part.kind == "thought" else {})


def _gemini_whole(answer: Answer, reason: str) -> bytes:
    told = gemini_shapes.response(*map(_gemini_part, answer), finish=_GEMINI_REASONS[reason], usage=gemini_shapes.USAGE)
    return orjson.dumps(told)


def _gemini_stream(answer: Answer, reason: str, cut: int) -> bytes:
    pieces = [
        piece for part in answer
        for piece in ([part] if part.kind == "call" else [part._replace(text=text) for text in _cut(part.text, cut)])
    ]  # fmt: skip
    told = [gemini_shapes.response(_gemini_part(piece), usage=gemini_shapes.FIRST_USAGE) for piece in pieces]
    last = gemini_shapes.response(finish=_GEMINI_REASONS[reason], usage=gemini_shapes.USAGE)
    return b"".join(sse(*told, last))


def _bedrock_block(part: Part) -> dict[str, Any]:
    if part.kind == "call":
        return {"toolUse": {"toolUseId": part.call_id, "name": part.text, "input": part.arguments}}
    if part.kind == "thought":
        return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
    return {"text": part.text}


def _bedrock_whole(answer: Answer, reason: str) -> bytes:
    said = {"message": {"role": "assistant", "content": list(map(_bedrock_block, answer))}}
    told = {"output": said, "stopReason": _ANTHROPIC_REASONS[reason], "usage": bedrock_shapes.USAGE}
    return orjson.dumps(told)


def _bedrock_stream(answer: Answer, reason: str, cut: int) -> bytes:
    told = [bedrock_message("messageStart", {"role": "assistant"})]
    for index, part in enumerate(answer):
        if part.kind == "call":
            use = {"toolUseId": part.call_id, "name": part.text}
            told.append(bedrock_message("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}}))
            written = orjson.dumps(part.arguments).decode() if part.arguments else ""
            told += [bedrock_shapes.delta(index, toolUse={"input": piece}) for piece in _cut(written, cut)]
        elif part.kind == "thought":
            told += [bedrock_shapes.delta(index, reasoningContent={"text": piece}) for piece in _cut(part.text, cut)]
            told.append(bedrock_shapes.delta(index, reasoningContent={"signature": part.signature}))
        else:
            told += [bedrock_shapes.delta(index, text=piece) for piece in _cut(part.text, cut)]
        told.append(bedrock_shapes.stop(index))
    told.append(bedrock_message("messageStop", {"stopReason": _ANTHROPIC_REASONS[reason]}))
    return b"".join([*told, bedrock_shapes.METADATA])


def _cut(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _responses_items(answer: Answer) -> list[dict[str, Any]]:
    """Each with an id of its own."""
    made = [
        responses_shapes.text(part.text) if part.kind == "text"
        else {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": part.text}],
              "encrypted_content": part.signature} if part.kind == "thought"
        else {"id": "fc", "type": "function_call", "status": "completed", "call_id": part.call_id, "name": part.text,
              "arguments": orjson.dumps(part.arguments).decode()}
        for part in answer
    ]  # fmt: skip
    return [{**item, "id": f"{item['id'].partition('_')[0]}_up{place}"} for place, item in enumerate(made)]


def _responses_end(answer: Answer, reason: str) -> dict[str, Any]:
    items = _responses_items(answer)
    if reason in ("stop", "tool_calls"):
        return responses_shapes.response(*items)
    return responses_shapes.incomplete("max_output_tokens" if reason == "length" else reason, *items)


def _responses_whole(answer: Answer, reason: str) -> bytes:
    return orjson.dumps(_responses_end(answer, reason))


def _responses_stream(answer: Answer, reason: str, cut: int) -> bytes:
    items = _responses_items(answer)
    return b"".join(responses_shapes.streamed(*items, end=_responses_end(answer, reason), cut=cut))


UPSTREAMS: Final[dict[str, tuple[Callable[[Answer, str], bytes], Callable[[Answer, str, int], bytes]]]] = {
    "openai": (_openai_whole, _openai_stream),
    "openai-responses": (_responses_whole, _responses_stream),
    "azure": (_openai_whole, _openai_stream),
    "anthropic": (_anthropic_whole, _anthropic_stream),
    "gemini": (_gemini_whole, _gemini_stream),
    "bedrock": (_bedrock_whole, _bedrock_stream),
}
"""Dialect of an upstream -> an answer as it tells it in one piece, and as a stream in pieces of so many characters."""


def relayed(dialect: str, pieces: list[bytes]) -> list[bytes]:
    """A stream that is read in these pieces, as blocks of our own chat stream: as the relay does it, without I/O."""
    translator = PROVIDERS[dialect].translator()
    chat = ChatStream(completion_id=f"chatcmpl-{ID}", model=PUBLIC_MODEL, choices=1, token_bound=100_000)
    blocks = []
    for piece in pieces:
        if chat.is_done or chat.failure is not None:
            break
        blocks.append(chat.feed(translator.feed(piece) if translator is not None else piece))
    if chat.failure is None:
        blocks.append((chat.feed(translator.end()) if translator is not None else b"") + chat.end())
    failed = chat.failure
    blocks.append(
        chat.closing_events({**to_openai(chat.tokens or USAGE), "cost": 0.0})
        if failed is None
        else failed.stream_event()
    )
    return [block for block in blocks if block]


class View(NamedTuple):
    """How one kind of client sees an answer."""

    whole: Callable[[dict[str, Any]], dict[str, Any]]
    """Of a chat completion."""
    stream: Callable[[], Callable[[bytes], bytes]]
    """What renders our own chat stream, block by block; a new one for each stream."""
    folded: Callable[[list[Any]], dict[str, Any]]
    """What the events of a stream come to, in the form of `whole`, without what is made up on the way."""
    is_last: Callable[[Any], bool]


_ASKED: Final = parse_responses(orjson.dumps({
    "model": "m", "input": "x", "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
}))  # fmt: skip


def _blocks() -> Blocks:
    return Blocks(ID, shows_thoughts=True)


def _messages_stream() -> Callable[[bytes], bytes]:
    usage = {**messages_usage(USAGE), "cost": 0.0}
    return MessagesStream(_blocks(), request_id=REQUEST, model="m", opening=usage, usage=lambda: usage).feed


def _messages_whole(answer: dict[str, Any]) -> dict[str, Any]:
    whole = whole_message(answer, _blocks(), request_id=REQUEST, model="m")
    return {name: whole[name] for name in ("content", "stop_reason", "stop_sequence")}


def _messages_folded(events: list[Any]) -> dict[str, Any]:
    return {"content": folded_blocks([event for event in events if "index" in event]), **events[-2]["delta"]}


def _begun() -> dict[str, Any]:
    return begun_response(_ASKED, request_id=REQUEST, model="m") | {"created_at": 1}


def _responses_stream() -> Callable[[bytes], bytes]:
    output = output_of(_ASKED, REQUEST)
    usage = {**responses_usage(USAGE), "cost": 0.0}
    return ResponsesStream(_begun(), output, usage=lambda: usage, service_tier=lambda: "").feed


def _responses_whole(answer: dict[str, Any]) -> dict[str, Any]:
    output = output_of(_ASKED, REQUEST)
    whole_output(answer, output)
    return {**ended(_begun(), output, {**responses_usage(USAGE), "cost": 0.0}, service_tier=""), "completed_at": 1}


def _chat_whole(answer: dict[str, Any]) -> dict[str, Any]:
    (choice,) = answer["choices"]
    message = {name: value for name, value in choice["message"].items() if name not in ("order", "role")}
    return {"message": {**message, "content": message["content"] or None}, "finish_reason": choice["finish_reason"]}


def _chat_folded(events: list[Any]) -> dict[str, Any]:
    return _chat_whole({"choices": list(folded_chat(events[:-1]).values())})


def _completions_whole(answer: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = text_completion(answer, request_id=REQUEST, model="m", echoed="")["choices"][0]
    return told


def _completions_folded(events: list[Any]) -> dict[str, Any]:
    choices = [choice for event in events[:-1] for choice in event["choices"]]
    return {**choices[-1], "text": "".join(choice["text"] for choice in choices)}


VIEWS: Final = {
    "chat": View(_chat_whole, lambda: lambda block: block, _chat_folded, lambda event: event == "[DONE]"),
    "completions": View(
        _completions_whole,
        lambda: CompletionsStream(request_id=REQUEST, model="m", echoed="").feed,
        _completions_folded,
        lambda event: event == "[DONE]",
    ),
    "messages": View(
        _messages_whole, _messages_stream, _messages_folded, lambda event: event["type"] in ("message_stop", "error")
    ),
    "responses": View(
        _responses_whole,
        _responses_stream,
        lambda events: {**events[-1]["response"], "completed_at": 1},
        lambda event: event["type"] in ("response.completed", "response.incomplete", "response.failed"),
    ),
}
"""Dialect of callers -> how they see an answer."""


def events_of(told: bytes) -> list[Any]:
    """The events of a client's stream, which are JSON or `[DONE]`."""
    lines = [block.rpartition(b"data: ")[2] for block in told.split(b"\n\n") if block]
    return [line.decode() if line == b"[DONE]" else orjson.loads(line) for line in lines]


def seen(caller: str, blocks: list[bytes]) -> bytes:
    """What a client gets of our own chat stream, in events that are whole."""
    feed, splitter = VIEWS[caller].stream(), EventSplitter()
    return b"".join(feed(splitter.feed(block)) for block in blocks)
