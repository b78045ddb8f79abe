"""What Bedrock says, for the tests of its dialect.

The shapes of answers are those of the service model of bedrock-runtime (botocore/data/bedrock-runtime/2023-09-30) and
of the examples in AWS's pages on Converse, with our own words in them."""

from typing import Any

import orjson

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.providers.bedrock_answer import BedrockStream
from apps.usage.contracts import TokenCounts
from tests.upstream.aws_signature import ACCESS_KEY, SECRET_KEY
from tests.upstream.eventstream import message
from tests.upstream.scripted import PUBLIC_MODEL

CREDENTIAL = f"{ACCESS_KEY}:{SECRET_KEY}"
CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
USAGE = {
    "inputTokens": 12, "outputTokens": 9, "totalTokens": 21, "cacheReadInputTokens": 30, "cacheWriteInputTokens": 5,
    "cacheDetails": [{"ttl": "1h", "inputTokens": 2}, {"ttl": "5m", "inputTokens": 3}],
}  # fmt: skip
TOKENS = TokenCounts(input=12, cache_read=30, cache_write=3, cache_write_1h=2, output=9)
HELLO = {"role": "user", "content": "hello"}


def delta(index: int, **piece: Any) -> bytes:
    return message("contentBlockDelta", {"contentBlockIndex": index, "delta": piece, "p": "abcdefg"})


def stop(index: int) -> bytes:
    return message("contentBlockStop", {"contentBlockIndex": index, "p": "abc"})


METADATA = message("metadata", {"usage": USAGE, "metrics": {"latencyMs": 412}, "p": "ab"})
STREAM = [
    message("messageStart", {"role": "assistant", "p": "abcd"}),
    delta(0, reasoningContent={"text": "Let me "}),
    delta(0, reasoningContent={"text": "think."}),
    delta(0, reasoningContent={"signature": "c2lnbmVk"}),
    stop(0),
    delta(1, text="Grüße "),
    delta(1, text="aus 🐝 Ulm"),
    stop(1),
    message(
        "contentBlockStart", {"contentBlockIndex": 2, "start": {"toolUse": {"toolUseId": "t_1", "name": "weather"}}}
    ),
    delta(2, toolUse={"input": '{"town":'}),
    delta(2, toolUse={"input": '"Ulm"}'}),
    stop(2),
    message("contentBlockStart", {"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "t_2", "name": "time"}}}),
    stop(3),
    message("messageStop", {"stopReason": "tool_use", "p": "abcde"}),
    METADATA,
]
WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Let me think.", "signature": "c2lnbmVk"}}},
                {"text": "Grüße aus 🐝 Ulm"},
                {"toolUse": {"toolUseId": "t_1", "name": "weather", "input": {"town": "Ulm"}}},
                {"toolUse": {"toolUseId": "t_2", "name": "time", "input": {}}},
            ],
        }
    },
    "stopReason": "tool_use", "usage": USAGE, "metrics": {"latencyMs": 412},
}  # fmt: skip
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather", "parameters": {"properties": {"town": {}}}},
}
CALLS = [
    {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}},
    {"id": "b", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
]
TALK = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
    HELLO,
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": CALLS,
        "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "signature": "c2ln"}],
    },
    {"role": "tool", "tool_call_id": "a", "content": "sun"},
    {"role": "tool", "tool_call_id": "b", "content": ""},
    {"role": "user", "content": "And?"},
]


def image(url: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}


def relayed(pieces: list[bytes]) -> tuple[bytes, ChatStream]:
    """What the client is sent of a stream that is read in these pieces."""
    translator = BedrockStream()
    stream = ChatStream(completion_id="chatcmpl-1", model=PUBLIC_MODEL, choices=1, token_bound=1_000)
    sent = b"".join(stream.feed(translator.feed(piece)) for piece in pieces)
    return sent + stream.feed(translator.end()) + stream.end(), stream


def chunks_of(relayed: bytes) -> list[Any]:
    return [orjson.loads(line[6:]) for line in relayed.split(b"\n\n") if line]
