"""Streams of each dialect of upstreams, event by event, for `bench.translated`: as the vendors write them, spaces and
all. The modules of `tests/upstream` named after the dialects tell where these shapes are from."""

import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import orjson

KINDS: Final = ("text", "thoughts", "arguments")
_HEAD: Final = (
    b'data: {"id":"chatcmpl-CFRv7R6dIZ3mYv7yZ5Zk0v","object":"chat.completion.chunk","created":1757683129,'
    b'"model":"gpt-4.1-mini-2025-04-14","service_tier":"default","system_fingerprint":"fp_5ac9","choices":[{"index":0,'
)
_CHUNK: Final = _HEAD + b'"delta":%b,"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
_AZURE: Final = (
    b'data: {"choices":[{"content_filter_results":%b,"delta":%b,"finish_reason":null,"index":0,"logprobs":null}],'
    b'"created":1757683129,"id":"chatcmpl-CFRv7R6dIZ3mYv7yZ5Zk0v","model":"gpt-4.1-mini-2025-04-14",'
    b'"object":"chat.completion.chunk","system_fingerprint":"fp_5ac9","usage":null}\n\n'
)
_SAFE: Final = b'{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"}}'
_RESPONSES: Final = b'event: %b\ndata: {"type":"%b","sequence_number":%d,%b}\n\n'
_AT: Final = b'"item_id":"%b","output_index":0,"%b_index":0,"delta":%b'
_GEMINI: Final = (
    b'data: {"candidates": [{"content": {"parts": [%b],"role": "model"},"index": 0}],"usageMetadata": '
    b'{"promptTokenCount": 12,"candidatesTokenCount": %d,"totalTokenCount": 64,"promptTokensDetails": '
    b'[{"modality": "TEXT","tokenCount": 12}]},"modelVersion": "gemini-2.5-flash","responseId": "x8mDaP"}\r\n\r\n'
)
_ITEM: Final = b"msg_68c3a1f0c2d481a0b1a2c3d4e5f60718"
Pieces = Callable[[list[bytes]], list[bytes]]
"""JSON strings -> events that say them."""


class Stream(NamedTuple):
    """A dialect's stream: the events before the first piece of each kind, and the pieces."""

    opening: dict[str, list[bytes]]
    pieces: dict[str, Pieces]


def some_words(count: int) -> list[bytes]:
    """Pieces as JSON strings: words, one in ten of them with an umlaut and one in ten with a line feed."""
    kinds = [" word", " of", " a", " grün", " text", " that", ".\n\n", " streams", " by", " here"]
    return [orjson.dumps(kinds[place % len(kinds)]) for place in range(count)]


def _openai() -> Stream:
    call = b'{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]}'
    begun = _CHUNK % b'{"role":"assistant","content":"","refusal":null}'
    return Stream(
        {"text": [begun], "thoughts": [begun], "arguments": [begun, _CHUNK % call]},
        {
            "text": lambda words: [_CHUNK % (b'{"content":%b}' % word) for word in words],
            "thoughts": lambda words: [_CHUNK % (b'{"reasoning_content":%b}' % word) for word in words],
            "arguments": lambda words: [
                _CHUNK % (b'{"tool_calls":[{"index":0,"function":{"arguments":%b}}]}' % word) for word in words
            ],
        },
    )


def _azure() -> Stream:
    call = b'{"tool_calls":[{"function":{"arguments":"","name":"f"},"id":"call_1","index":0,"type":"function"}]}'
    begun = _AZURE % (b"{}", b'{"content":"","refusal":null,"role":"assistant"}')

    def deltas(delta: bytes, filtered: bytes) -> Pieces:
        return lambda words: [_AZURE % (filtered, delta % word) for word in words]

    return Stream(
        {"text": [begun], "arguments": [begun, _AZURE % (b"{}", call)]},
        {
            "text": deltas(b'{"content":%b}', _SAFE),
            "arguments": deltas(b'{"tool_calls":[{"function":{"arguments":%b},"index":0}]}', b"{}"),
        },
    )


def _responses_event(kind: bytes, number: int, told: bytes) -> bytes:
    return _RESPONSES % (kind, kind, number, told)


def _responses() -> Stream:
    response = b'"response":{"id":"resp_68c3","object":"response","status":"in_progress","model":"gpt-5-mini"}'
    begun = [
        _responses_event(b"response." + kind, at, response) for at, kind in enumerate((b"created", b"in_progress"))
    ]
    items = {
        "text": b'"type":"message","status":"in_progress","content":[],"role":"assistant"',
        "thoughts": b'"type":"reasoning","summary":[]',
        "arguments": b'"type":"function_call","status":"in_progress","arguments":"","call_id":"call_1","name":"f"',
    }
    parts = {
        "text": (
            b"response.content_part.added",
            b'"content_index":0,"part":{"type":"output_text","annotations":[],"text":""}',
        ),
        "thoughts": (
            b"response.reasoning_summary_part.added",
            b'"summary_index":0,"part":{"type":"summary_text","text":""}',
        ),
    }
    opening = {}
    for kind, item in items.items():
        added = b'"output_index":0,"item":{"id":"%b",%b}' % (_ITEM, item)
        opening[kind] = [*begun, _responses_event(b"response.output_item.added", 2, added)]
        if kind in parts:
            name, part = parts[kind]
            opening[kind].append(_responses_event(name, 3, b'"item_id":"%b","output_index":0,%b' % (_ITEM, part)))

    def deltas(name: bytes, place: bytes, more: bytes) -> Pieces:
        return lambda words: [
            _responses_event(
                name, 4 + at, b'"item_id":"%b","output_index":0,%b"delta":%b%b' % (_ITEM, place, word, more)
            )
            for at, word in enumerate(words)
        ]

    hidden = b',"obfuscation":"kTqPz"'
    return Stream(
        opening,
        {
            "text": deltas(b"response.output_text.delta", b'"content_index":0,', b',"logprobs":[]' + hidden),
            "thoughts": deltas(b"response.reasoning_summary_text.delta", b'"summary_index":0,', hidden),
            "arguments": deltas(b"response.function_call_arguments.delta", b"", hidden),
        },
    )


def _anthropic() -> Stream:
    start = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_01","type":"message",'
        b'"role":"assistant","model":"claude-sonnet-4-5","content":[],"stop_reason":null,"stop_sequence":null,"usage":'
        b'{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}}\n\n'
    )
    block = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":%b }\n\n'
    delta = b'"index":0,"delta":{"type":"%b","%b":%b}   }\n\n'
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta",' + delta
    blocks = {
        "text": b'{"type":"text","text":""}',
        "thoughts": b'{"type":"thinking","thinking":"","signature":""}',
        "arguments": b'{"type":"tool_use","id":"toolu_01","name":"f","input":{}}',
    }
    fields = {
        "text": (b"text_delta", b"text"),
        "thoughts": (b"thinking_delta", b"thinking"),
        "arguments": (b"input_json_delta", b"partial_json"),
    }

    def deltas(kind: bytes, field: bytes) -> Pieces:
        return lambda words: [delta % (kind, field, word) for word in words]

    return Stream(
        {kind: [start, block % content] for kind, content in blocks.items()},
        {kind: deltas(*named) for kind, named in fields.items()},
    )


def _gemini() -> Stream:
    def deltas(part: bytes) -> Pieces:
        return lambda words: [_GEMINI % (part % word, at) for at, word in enumerate(words, start=1)]

    return Stream(
        {"text": [], "thoughts": []},
        {"text": deltas(b'{"text": %b}'), "thoughts": deltas(b'{"text": %b,"thought": true}')},
    )


def _bedrock() -> Stream:
    def deltas(piece: bytes) -> Pieces:
        told = b'{"contentBlockIndex":0,"delta":%b,"p":"abcdefghijk"}'
        return lambda words: [_bedrock_message("contentBlockDelta", told % (piece % word)) for word in words]

    begun = _bedrock_message("messageStart", b'{"p":"abcd","role":"assistant"}')
    call = b'{"contentBlockIndex":0,"p":"ab","start":{"toolUse":{"name":"f","toolUseId":"tooluse_1"}}}'
    return Stream(
        {"text": [begun], "thoughts": [begun], "arguments": [begun, _bedrock_message("contentBlockStart", call)]},
        {
            "text": deltas(b'{"text":%b}'),
            "thoughts": deltas(b'{"reasoningContent":{"text":%b}}'),
            "arguments": deltas(b'{"toolUse":{"input":%b}}'),
        },
    )


def _bedrock_message(kind: str, payload: bytes) -> bytes:
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    packed = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


STREAMS: Final[dict[str, Stream]] = {
    "openai": _openai(),
    "azure": _azure(),
    "openai-responses": _responses(),
    "anthropic": _anthropic(),
    "gemini": _gemini(),
    "bedrock": _bedrock(),
}
"""Dialect -> its stream. Gemini's calls come whole, and Azure has no thoughts."""
