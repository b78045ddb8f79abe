"""The sandbox as a server: its routes, the life of one request, start and stop."""

import asyncio
import hmac
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import time
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import orjson

from crun.sandbox import embeddings
from crun.sandbox.chat import read_chat
from crun.sandbox.errors import ApiError, unknown_model
from crun.sandbox.faults import refuse
from crun.sandbox.planning import FlakyCounter, Reply, is_model, model_names, plan_reply, writer_of_chat
from crun.sandbox.playing import play
from crun.sandbox.responses import chat_of, in_words_of_responses, read_responses, writer_of_responses
from crun.sandbox.steps import Outcome, Plan, whole
from crun.sandbox.truth import Ticket, TruthLog
from crun.sandbox.wire import ClientGone, Connection, Exchange

CREATED = 1_767_225_600  # what the model list says: 2026-01-01
BACKLOG = 4_096


@dataclass(frozen=True, slots=True)
class Options:
    """Where to listen (`port` 0: any free one; `descriptor`: an inherited listening socket), what to log."""

    host: str = "127.0.0.1"
    port: int = 9101
    descriptor: int | None = None
    truth: Path | None = None
    api_key: str | None = None


class Sandbox:
    """A running sandbox: `async with Sandbox(Options(port=0)) as sandbox: ... sandbox.url`."""

    def __init__(self, options: Options, *, sync: Callable[[int], None] = os.fsync) -> None:
        self._options = options
        self._sync = sync  # what makes the truth log durable
        self._connections: set[Connection] = set()
        self._flaky = FlakyCounter()
        self._server: asyncio.Server | None = None
        self._truth: TruthLog | None = None
        self.must_stop = asyncio.Event()
        self.failure: OSError | None = None  # of the truth log; it sets must_stop
        self.port = options.port

    @property
    def url(self) -> str:
        """The base URL as an OpenAI client takes it."""
        host = self._options.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    async def start(self) -> None:
        """Listen. Raises OSError when the address or the truth file is not to be had."""
        options = self._options
        if options.truth is not None:
            self._truth = TruthLog(options.truth, on_failure=self._fail, sync=self._sync)
        loop = asyncio.get_running_loop()
        try:
            if options.descriptor is not None:
                listening = socket.socket(fileno=options.descriptor)
                self._server = await loop.create_server(self._connect, sock=listening, backlog=BACKLOG)
            else:
                self._server = await loop.create_server(self._connect, options.host, options.port, backlog=BACKLOG)
        except BaseException:  # a cancellation too: the log's task must not outlive a start that failed
            await self._close_truth()
            raise
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, cut what is open, and return when the truth log says so."""
        if self._server is not None:
            self._server.close()
        tasks = [task for connection in list(self._connections) if (task := connection.stop()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_truth()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request of any kind."""
        request = exchange.request
        try:
            if request.path != "/healthz":
                self._authenticate(request.presented_key)
            if request.path == "/v1/chat/completions":
                await self._chat(exchange)
                return
            if request.path == "/v1/responses":
                await self._responses(exchange)
                return
            if request.path == "/v1/embeddings":
                await self._embeddings(exchange)
                return
            plan = _look_up(request.method, request.path)
        except ApiError as error:
            plan = refuse(error)
        await play(plan, exchange, Ticket(None, None))

    async def _chat(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != "POST":
            raise ApiError(405, "Chat completions are created by POST.", headers=(("allow", "POST"),))
        chat = read_chat(request.body)
        writer = writer_of_chat(chat, int(time()))
        reply = plan_reply(chat, writer, presented_key=request.presented_key, flaky=self._flaky)
        ticket = Ticket(self._truth, request.headers.get("x-request-id"))
        await _give(chat.model, reply, exchange, ticket, stream=bool(chat.stream))

    async def _responses(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != "POST":
            raise ApiError(405, "Responses are created by POST.", headers=(("allow", "POST"),))
        asked = read_responses(request.body)
        chat = chat_of(asked)
        writer = writer_of_responses(asked, int(time()))
        try:
            reply = plan_reply(chat, writer, presented_key=request.presented_key, flaky=self._flaky)
        except ApiError as error:
            raise in_words_of_responses(error) from None
        ticket = Ticket(self._truth, request.headers.get("x-request-id"))
        await _give(chat.model, reply, exchange, ticket, stream=bool(chat.stream))

    async def _embeddings(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method != "POST":
            raise ApiError(405, "Embeddings are created by POST.", headers=(("allow", "POST"),))
        asked = embeddings.read_embeddings(request.body)
        reply = embeddings.plan_embeddings(asked, presented_key=request.presented_key)
        ticket = Ticket(self._truth, request.headers.get("x-request-id"))
        await _give(asked.model, reply, exchange, ticket)

    def _authenticate(self, presented_key: str) -> None:
        expected = self._options.api_key
        if expected is not None and not hmac.compare_digest(presented_key.encode(), expected.encode()):
            raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")

    def _connect(self) -> Connection:
        return Connection(self.answer, self._connections)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        self.must_stop.set()

    async def _close_truth(self) -> None:
        truth, self._truth = self._truth, None
        if truth is not None:
            await truth.close()


async def _give(model: str, reply: Reply, exchange: Exchange, ticket: Ticket, *, stream: bool = False) -> None:
    """Perform the reply between its request line and its end line in the truth log."""
    outcome = Outcome.CUT
    try:
        await ticket.accept(model=model, stream=stream, usage=reply.usage)
        outcome = await play(reply.plan, exchange, ticket)
    except ClientGone:
        outcome = Outcome.CLIENT_GONE
        raise
    except asyncio.CancelledError:
        outcome = Outcome.CLIENT_GONE if exchange.client_gone else Outcome.CUT
        raise
    finally:
        ticket.end(outcome)


def _look_up(method: str, path: str) -> Plan:
    """The answer of every path that is only read."""
    if method not in ("GET", "HEAD"):
        raise ApiError(404, f"Nothing is served by {method} {path}.", code="not_found")
    if path == "/healthz":
        return whole(200, b'{"status":"ok"}')
    if path == "/v1/models":
        listed = [_model_object(name) for name in (*model_names(), embeddings.MODEL)]
        return whole(200, orjson.dumps({"object": "list", "data": listed}))
    if path.startswith("/v1/models/"):
        name = unquote(path.removeprefix("/v1/models/"))
        if not is_model(name) and name != embeddings.MODEL:
            raise unknown_model(name)
        return whole(200, orjson.dumps(_model_object(name)))
    raise ApiError(404, f"Nothing is served by {method} {path}.", code="not_found")


def _model_object(name: str) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "crun-sandbox"}
