"""An upstream that goes wrong as it is told to, byte by byte over real sockets, and notes what it saw."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import msgspec

from apps.catalog.contracts import Target
from tests.factories import TARGET

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


class FaultyUpstream:
    """`async with FaultyUpstream(behaviour) as upstream`; a request is read before its behaviour begins."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests = 0
        self.hung_up = 0
        """Connections that the gateway closed while it was waited for."""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "FaultyUpstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()

    def target(self, **changes: Any) -> Target:
        """A route that leads here."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        return msgspec.structs.replace(TARGET, base_url=f"http://127.0.0.1:{port}/v1", **changes)

    async def hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say nothing until the gateway has enough."""
        while await reader.read(65_536):
            pass
        self.hung_up += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.requests += 1
                await self.behaviour(reader, writer)
        finally:
            writer.close()


def saying(*pieces: bytes, then: Behaviour | None = None) -> Behaviour:
    """Write this, then go on or close (FIN)."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then is not None:
            await then(reader, writer)

    return behave


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close by RST, once what was written has left."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def refusing(status: int, **headers: str) -> Behaviour:
    """A whole answer with an error."""
    body = b'{"error":{"message":"no","type":"x","code":null}}'
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()).encode()
    return saying(
        b"HTTP/1.1 %d No\r\n%scontent-length: %d\r\nconnection: close\r\n\r\n%s" % (status, told, len(body), body)
    )


def chunk(payload: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def words(count: int) -> bytes:
    """So many chunks of a stream, a word each."""
    text = b'data: {"id":"a","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
    return b"".join(chunk(text) for _ in range(count))


def whole_answer(text: str = "fine") -> bytes:
    """A good answer that is not streamed."""
    body = msgspec.json.encode(
        {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        }
    )
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (
        len(body),
        body,
    )


ANSWER = saying(whole_answer())
