"""The upstream of the benchmark: fixed answers as fast as Python can give them, so that it is never the bottleneck.

    python -m bench.upstream --port 9300 --pace-ms 5

It answers any POST. `"stream":true` in the body gets as many content chunks as the body's `max_tokens` says, one every
`pace-ms`, so that a proxy has to read each of them by itself.
"""

import argparse
import asyncio
import json
import re
import signal
import time
from collections.abc import Callable
from typing import cast

import uvloop

from bench.pacing import Pacer

MODEL = "gpt-4o-mini-2024-07-18"
CREATED = 1_767_225_600
PROMPT_TOKENS = 24
COMPLETION_TOKENS = 61
"""Of the whole answer; a stream has as many as it has chunks."""

_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream": *true')
_MAX_LINE = 200
_MAX_TOKENS = re.compile(rb'"max_tokens": *(\d+)')
_SENTENCE = (
    "A proxy reads what one side sends and writes it to the other. What it does in between, such as asking who pays, "
    "counting what went through and looking for the end, is what this benchmark measures against one that does nothing."
)


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _usage(completion_tokens: int) -> dict[str, int]:
    total = PROMPT_TOKENS + completion_tokens
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": completion_tokens, "total_tokens": total}


def _whole_answer() -> bytes:
    message = {"role": "assistant", "content": _SENTENCE, "refusal": None}
    body = _json(
        {
            "id": "chatcmpl-C1rQ0bXh7Vd2mJk9sTzWnE4uYgLpA",
            "object": "chat.completion",
            "created": CREATED,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _usage(COMPLETION_TOKENS),
            "system_fingerprint": "fp_0123456789",
        }
    )
    return _with_head(body)


def _other_answers() -> tuple[tuple[bytes, bytes], ...]:
    """(what its path has in it, a whole answer) of the dialects that are no OpenAI's."""
    tokens, output = PROMPT_TOKENS, COMPLETION_TOKENS
    anthropic = {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": _SENTENCE}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": tokens, "output_tokens": output},
    }
    gemini = {
        "candidates": [{"content": {"role": "model", "parts": [{"text": _SENTENCE}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": tokens, "candidatesTokenCount": output},
    }
    bedrock = {
        "output": {"message": {"role": "assistant", "content": [{"text": _SENTENCE}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": tokens, "outputTokens": output, "totalTokens": tokens + output},
    }
    paths = {b"/messages HTTP": anthropic, b":generateContent HTTP": gemini, b"/converse HTTP": bedrock}
    return tuple((path, _with_head(_json(answer))) for path, answer in paths.items())


def _with_head(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    chunk = {
        "id": "chatcmpl-C1rQ0bXh7Vd2mJk9sTzWnE4uYgLpA",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        **more,
    }
    return b"data: " + _json(chunk) + b"\n\n"


def _framed(part: bytes) -> bytes:
    """As one chunk of HTTP's chunked encoding."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def _ending(chunks: int) -> bytes:
    finish = _event([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}])
    return _framed(finish + _event([], usage=_usage(chunks)) + b"data: [DONE]\n\n") + b"0\r\n\r\n"


WHOLE_ANSWER = _whole_answer()
OTHER_ANSWERS = _other_answers()
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STAMP = "%020d"
"""The content of every chunk: the moment at which it was written, in nanoseconds of the machine's monotonic clock. To
everybody on its way it is a word; to the load generator it tells how long that way took."""
_CHUNK = _event([{"index": 0, "delta": {"content": STAMP}, "logprobs": None, "finish_reason": None}])
_FRAMED_CHUNK = _framed(_CHUNK.replace(STAMP.encode(), b"0" * 20)).replace(b"0" * 20, STAMP.encode())


def content_chunk(at_ns: int) -> bytes:
    """A chunk of a stream, with the moment from which on its delay counts."""
    return _FRAMED_CHUNK % at_ns


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time, as clients send them."""

    def __init__(self, pacer: Pacer, pace_ns: int) -> None:
        self._pacer = pacer
        self._pace_ns = pace_ns
        self._received: bytes | bytearray = b""
        self._next_at_ns = 0
        self._left = self._chunks = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has no common ancestor with it

    def data_received(self, data: bytes) -> None:
        if not self._received:
            received: bytes | bytearray = data
        else:  # a large request, mostly: it grows where it is
            received = self._received if isinstance(self._received, bytearray) else bytearray(self._received)
            received += data
        self._received = received
        head_end = received.find(_HEAD_END)
        if head_end < 0:
            return
        length = _CONTENT_LENGTH.search(received, 0, head_end)
        end = head_end + len(_HEAD_END) + (int(length.group(1)) if length else 0)
        if len(received) < end:
            return
        self._received = received[end:]
        self._answer(received)

    def _answer(self, request: bytes | bytearray) -> None:
        if other := next((answer for path, answer in OTHER_ANSWERS if path in request[:_MAX_LINE]), None):
            self._transport.write(other)
            return
        wanted = _MAX_TOKENS.search(request)
        if wanted is None or _STREAM.search(request) is None:
            self._transport.write(WHOLE_ANSWER)
            return
        self._chunks = int(wanted.group(1))
        self._left = self._chunks - 1
        self._transport.write(STREAM_HEAD + content_chunk(time.monotonic_ns()))
        self._next_at_ns = time.monotonic_ns() + self._pace_ns
        self._pacer.call_at(self._next_at_ns, self._go_on)

    def _go_on(self) -> None:
        if self._transport.is_closing():
            return
        if self._left == 0:
            self._transport.write(_ending(self._chunks))
            return
        self._left -= 1
        self._send_chunk(self._next_at_ns)
        self._next_at_ns += self._pace_ns
        self._pacer.call_at(self._next_at_ns, self._go_on)

    def _send_chunk(self, due_ns: int) -> None:
        """Now: being late itself is no delay that anybody else added."""
        self._transport.write(content_chunk(time.monotonic_ns()))


async def serve(port: int, make_connection: Callable[[Pacer], Connection]) -> None:
    """Answer until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    pacer = Pacer()
    server = await loop.create_server(lambda: make_connection(pacer), "127.0.0.1", port, backlog=1024)
    await stopped.wait()
    server.close()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="bench.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pace-ms", type=float, default=5.0, help="time between two chunks of a stream")
    options = parser.parse_args()
    pace_ns = int(options.pace_ms * 1e6)
    uvloop.run(serve(options.port, lambda pacer: Connection(pacer, pace_ns)))


if __name__ == "__main__":
    main()
