"""What Gemini says, for the tests of its dialect.

The shapes of answers are those of the reference of `models.generateContent` (ai.google.dev/api/generate-content) and of
the responses in the tests of googleapis/python-genai and vercel/ai (packages/google), with our own words in them."""

from typing import Any

import orjson

from apps.gateway.dialects.chat_stream import ChatStream
from apps.gateway.providers.gemini_answer import GeminiStream
from apps.usage.contracts import TokenCounts
from tests.upstream.scripted import PUBLIC_MODEL, UPSTREAM_MODEL, sse

USAGE = {
    "promptTokenCount": 12,
    "cachedContentTokenCount": 4,
    "candidatesTokenCount": 9,
    "thoughtsTokenCount": 5,
    "totalTokenCount": 26,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}],
}
TOKENS = TokenCounts(input=8, cache_read=4, output=9, reasoning=5)
CALL = {"functionCall": {"id": "fc_1", "name": "weather", "args": {"town": "Ulm"}}, "thoughtSignature": "c2lnbmVk"}


def response(*parts: dict[str, Any], finish: str | None = None, usage: Any = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    told = {"usageMetadata": usage} if usage else {}
    return {"candidates": [candidate], **told, "modelVersion": UPSTREAM_MODEL, "responseId": "resp-secret", **more}


FIRST_USAGE = {"promptTokenCount": 12, "candidatesTokenCount": 2, "totalTokenCount": 14}
STREAM = sse(
    response({"text": "Let me think.", "thought": True}, usage={"promptTokenCount": 12, "totalTokenCount": 12}),
    response({"text": "Grüße "}, usage=FIRST_USAGE),
    response({"text": "aus 🐝 Ulm"}, usage=FIRST_USAGE),
    response(CALL, {"functionCall": {"name": "time", "args": {}}}, usage=FIRST_USAGE),
    response({"text": ""}, finish="STOP", usage=USAGE),
)
WHOLE = response(
    {"text": "Let me think.", "thought": True},
    {"text": "Grüße "},
    {"text": "aus 🐝 Ulm"},
    CALL,
    {"functionCall": {"name": "time", "args": {}}},
    finish="STOP",
    usage=USAGE,
)
HELLO = {"role": "user", "content": "hello"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town",
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "minLength": 1},
                "unit": {"$ref": "#/$defs/unit"},
                "day": {"type": ["string", "null"]},
            },
            "required": ["town"],
            "additionalProperties": False,
            "$defs": {"unit": {"enum": ["c", "f"]}},
        },
    },
}


def relayed(pieces: list[bytes]) -> tuple[bytes, ChatStream]:
    """What the client is sent of a stream that is read in these pieces."""
    translator = GeminiStream()
    stream = ChatStream(completion_id="chatcmpl-1", model=PUBLIC_MODEL, choices=1, token_bound=1_000)
    sent = b"".join(stream.feed(translator.feed(piece)) for piece in pieces)
    return sent + stream.feed(translator.end()) + stream.end(), stream


def chunks_of(relayed: bytes) -> list[Any]:
    return [orjson.loads(line[6:]) for line in relayed.split(b"\n\n") if line]
