"""An upstream that plays scripts over real sockets: it answers what a test wrote down and keeps what it was sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from apps.catalog.contracts import Target
from apps.catalog.dialects import with_defaults
from tests.factories import TARGET, offered, snapshot
from tests.gateway.conftest import UPSTREAM_KEY, Bench

PUBLIC_MODEL = "public-model"
UPSTREAM_MODEL = "secret-upstream-model"


@dataclass
class Received:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Answer:
    """What is answered: `pieces` are written one by one, and each as a chunk of its own."""

    pieces: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    """The connection breaks after the last piece: the answer never ends properly."""
    is_closed_by_end: bool = False
    """No chunks: the answer ends where the connection does, so that a cut looks like an end."""


class ScriptedUpstream:
    """An HTTP/1.1 server on a free port. Answers are taken from `answers` in turn; the last one is repeated."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Received] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "ScriptedUpstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def request(self) -> Received:
        """The only request that came."""
        (only,) = self.requests
        return only

    def answer(self, *pieces: bytes, **fields: Any) -> None:
        """Answer the next request with these bytes."""
        self.answers.append(Answer(pieces, **fields))

    def choose(self, received: Received) -> Answer:
        """The answer to a request, which is the last one kept."""
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def offer(self, bench: Bench, dialect: str, *, options: dict[str, str] | None = None, **changes: Any) -> Target:
        """Put PUBLIC_MODEL on offer, with one route to here."""
        fields = {name: changes.pop(name) for name in ("upstream_model", "api_key", "base_url") if name in changes}
        values = {"base_url": self.url, "upstream_model": UPSTREAM_MODEL, "api_key": UPSTREAM_KEY, **fields}
        target = msgspec.structs.replace(
            TARGET, dialect=dialect, options=with_defaults(dialect, options or {}), **values
        )
        modalities = ("text", "image", "audio", "file", "video")
        model = offered(
            id=PUBLIC_MODEL, targets=(target,), input_modalities=modalities, max_output_tokens=5_000, **changes
        )
        bench.models[PUBLIC_MODEL] = model
        bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
        return target

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while await self._answer_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over; asyncio complains of a handler that is cancelled
        finally:
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        received = Received(method, target, headers, body)
        self.requests.append(received)
        answer = self.choose(received)
        told = {"content-type": "text/event-stream", **answer.headers}
        told |= {"connection": "close"} if answer.is_closed_by_end else {"transfer-encoding": "chunked"}
        lines = [f"HTTP/1.1 {answer.status} Said", *(f"{name}: {value}" for name, value in told.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        for piece in answer.pieces:
            writer.write(piece if answer.is_closed_by_end else b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if answer.cut or answer.is_closed_by_end:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def sse(*events: object) -> list[bytes]:
    """Server-sent events, each a piece: objects as JSON, text as it is."""
    return [b"data: " + (each.encode() if isinstance(each, str) else orjson.dumps(each)) + b"\n\n" for each in events]


def folded(chunks: list[Any]) -> dict[int, dict[str, Any]]:
    """Chunks of a stream as the choices of a whole answer, by index. What they say of usage is left out."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for piece in chunk["choices"] if isinstance(chunk, dict) and "choices" in chunk else ():
            choice = choices.setdefault(piece["index"], {"message": {"content": None}, "finish_reason": None})
            _add(choice["message"], piece.get("delta") or {})
            choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
    return choices


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for call in value or ():
                plain = {key: each for key, each in call.items() if key != "index"}
                if call["index"] == len(calls):
                    calls.append(plain)
                else:
                    kind, field = ("custom", "input") if "custom" in call else ("function", "arguments")
                    calls[call["index"]][kind][field] += call[kind][field]
        elif name != "role" and isinstance(value, str | list) and isinstance(message.get(name), type(value)):
            message[name] += value
        elif value is not None:
            message[name] = value


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose calls have no ids: some are made up on the way."""
    calls = [{name: value for name, value in call.items() if name != "id"} for call in message.get("tool_calls", ())]
    return {**message, "tool_calls": calls} if calls else message
