"""The data path's own ASGI entry: matches the route, calls the view on the event loop, sends what it returns.

Django's handler is not involved: it would cost a thread pool, signals and a dozen hops for every request.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import cache, lru_cache, partial
from typing import Any, cast

from django.urls import Resolver404, URLPattern, URLResolver, get_resolver

from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.gateway.dialects.anthropic_envelope import anthropic_error
from apps.gateway.dialects.large_body import LARGE_BYTES
from apps.gateway.errors import (
    BODY_TOO_LARGE,
    NOT_FOUND,
    REQUEST_TIMEOUT,
    STORE_AWAY,
    UNSUPPORTED_ENCODING,
    GatewayError,
)
from apps.gateway.runtime import current_runtime, start_runtime, stop_runtime
from apps.gateway.server.answer import Answer, EventStream, JsonBytes, Response
from apps.gateway.server.authentication import KeyAuthentication, presented_key
from apps.gateway.server.cancellation import CLIENT_GONE
from apps.gateway.server.direct import CLIENT, Client, DirectSource
from apps.gateway.server.disconnect import DisconnectWatch, Receive
from apps.gateway.server.health import health_answer
from apps.gateway.server.heartbeat import Heartbeat
from apps.gateway.server.http import AsyncAPIView
from apps.gateway.server.lean_request import LeanRequest, headers_meta
from apps.gateway.server.stopping import STOPPING

MAX_BODY_BYTES = 20 << 20
"""No request body is larger, with media in it or without."""
CLIENT_BODY_TIMEOUT_S = 60.0
EARLY_CHECK_BYTES = 256 << 10
"""Whoever sends more than this, or does not say how much, shows a valid key before it is read."""
API_PREFIX = "/api/v1/"
MESSAGES_PATH = f"{API_PREFIX}messages"
"""Here and beneath it callers speak Anthropic's dialect."""
HEALTH_PATHS = ("/healthz", "/readyz")

Scope = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
View = Callable[..., Awaitable[Response]]

_NOTHING: Mapping[str, Any] = {}

log = logging.getLogger(__name__)


class ClientGone(Exception):
    """The client closed the connection while it was still sending its request."""


class Gateway:
    """The ASGI application of the data path. One instance a process."""

    def __init__(self) -> None:
        self._resolver = get_resolver("apps.gateway.urls")  # no page of the web process is ever served from here
        self._views = _exact_routes(self._resolver)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["path"] in HEALTH_PATHS:
            await _send_whole(health_answer(scope["path"]), send, None)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = new_id("req")
        client: Client | None = scope.get("extensions", _NOTHING).get(CLIENT)
        try:
            view, arguments = self._route(scope["path"])
            announced, is_compressed = _announced(scope)
            if announced is None or announced > EARLY_CHECK_BYTES:
                await _refuse_strangers(scope)
            if is_compressed:
                raise GatewayError(UNSUPPORTED_ENCODING, "Compressed request bodies are not accepted.")
            if announced is not None and announced > MAX_BODY_BYTES:
                raise _too_large()
            body = None if client is None else client.take_body()
            if body is None:
                body = await _read_body(receive)
            elif len(body) > MAX_BODY_BYTES:
                raise _too_large()
        except GatewayError as error:
            await _send_whole(_refusal(error, request_id, scope["path"]), send, client)
            return
        except ClientGone:
            return
        request = LeanRequest(scope, body, request_id)
        del body  # 20 MB, perhaps: whoever has parsed it needs it no more
        request.start_heartbeat = partial(_start_heartbeat, send, client, request_id)
        await _run(request, view(request, **arguments), receive, send, client)

    def _route(self, path: str) -> tuple[View, dict[str, Any]]:
        view = self._views.get(path)
        if view is not None:
            return view, {}
        if not path.startswith(API_PREFIX):
            raise GatewayError(NOT_FOUND, f"There is no endpoint at {path}.")
        try:
            match = self._resolver.resolve("/" + path.removeprefix(API_PREFIX))
        except Resolver404:
            raise GatewayError(NOT_FOUND, f"There is no endpoint at {path}.") from None
        return _bare(match.func), match.kwargs


def serves(scope: Scope) -> bool:
    """Whether a request belongs to the data path."""
    return scope["type"] == "http" and (scope["path"].startswith(API_PREFIX) or scope["path"] in HEALTH_PATHS)


async def _run(
    request: LeanRequest, answer: Awaitable[Response], receive: Receive, send: Send, client: Client | None
) -> None:
    """Await the view and send its response; a client that leaves cancels both. Whatever was taken is given back."""
    watch = None
    if client is None:
        watch = DisconnectWatch(receive)
    else:
        client.when_gone(partial(_cancel, asyncio.current_task()))
    response = None
    try:
        response = await answer
        del answer
        request.answered()
        if isinstance(response, EventStream):
            async with aclosing(response.source):  # before anything is awaited: whoever records it is told of its end
                await _send_stream(response, request.heartbeat, send, client)
        elif request.heartbeat is not None and await request.heartbeat.begun():
            await _send_late(response, request.heartbeat, send)
        else:
            await _send_whole(response, send, client)
    except asyncio.CancelledError:
        log.debug("request cancelled: its client left, was too slow, or this process stops")
    finally:
        if watch is not None:
            watch.stop()
        if request.heartbeat is not None:
            request.heartbeat.stop()
        if isinstance(response, EventStream):
            response.release()


def _start_heartbeat(send: Send, client: Client | None, request_id: str, error_event: bytes) -> Heartbeat:
    """For a stream that was asked for, and has not begun."""

    async def begin(headers: Mapping[str, str]) -> None:
        await send(_start(200, _encoded(headers)))

    named = {"x-request-id": request_id, "x-crun-generation-id": request_id}
    return Heartbeat(send, client, begin, headers=named, error_event=error_event)


def _cancel(served: "asyncio.Task[None] | None") -> None:
    if served is not None:
        served.cancel(CLIENT_GONE)


def _announced(scope: Scope) -> tuple[int | None, bool]:
    """How large the body will be by its headers, None when they do not say so, and whether it is compressed."""
    size: int | None = 0
    is_compressed = False
    for name, value in scope["headers"]:
        if name == b"content-length" and size is not None:
            size = max(size, int(value)) if value.isdigit() else None
        elif name == b"transfer-encoding":
            size = None
        elif name == b"content-encoding":
            is_compressed = is_compressed or value.lower() != b"identity"
    return size, is_compressed


async def _refuse_strangers(scope: Scope) -> None:
    """Memory is for those who are known. Raises GatewayError (401, 400, 503)."""
    try:
        KeyAuthentication.accept(await current_runtime().keys.find(presented_key(headers_meta(scope))))
    except Unavailable as error:
        raise GatewayError(STORE_AWAY, f"Not available right now: {error.message}.") from error


async def _read_body(receive: Receive) -> bytes:
    """The whole body. Raises GatewayError for one that is too large or too slow, ClientGone for one that never ends."""
    limit = _BodyLimit()
    try:
        return await _read_parts(receive)
    except asyncio.CancelledError:
        if limit.took_effect():
            raise GatewayError(REQUEST_TIMEOUT, "The request body did not arrive in time.") from None
        raise
    finally:
        limit.stop()


class _BodyLimit:
    """Cancels the task that made it when a body takes too long: a lighter `asyncio.timeout`, for every request."""

    __slots__ = ("_expired", "_task", "_timer")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._expired = False
        self._timer = asyncio.get_running_loop().call_later(CLIENT_BODY_TIMEOUT_S, self._expire)

    def stop(self) -> None:
        self._timer.cancel()

    def took_effect(self) -> bool:
        """In a handler of CancelledError: whether it was this limit. The task is then no longer being cancelled."""
        return self._expired and self._task is not None and self._task.uncancel() == 0

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            self._task.cancel()


async def _read_parts(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):  # a large one stays where it has grown: to copy it would take ten milliseconds
            return bytes(body) if len(body) <= LARGE_BYTES else cast(bytes, body)


def _refusal(error: GatewayError, request_id: str, path: str) -> Answer:
    """An error before any view was found."""
    headers = {**error.headers(), "x-request-id": request_id, "x-crun-generation-id": request_id}
    if path == MESSAGES_PATH or path.startswith(f"{MESSAGES_PATH}/"):
        status, body = anthropic_error(error, request_id)
        return JsonBytes(body, status=status, headers={**headers, "request-id": request_id})
    return JsonBytes(error.body(), status=error.kind.status, headers=headers)


def _too_large() -> GatewayError:
    return GatewayError(BODY_TOO_LARGE, f"The request body is larger than {MAX_BODY_BYTES >> 20} MB.")


async def _send_stream(response: EventStream, heartbeat: Heartbeat | None, send: Send, client: Client | None) -> None:
    if heartbeat is None or not await heartbeat.begun():
        headers = _encoded(response.headers)
        if client is None or STOPPING.is_asked or not client.begin(headers):
            await send(_start(response.status_code, headers))
    await _send_parts(response, send, client, heartbeat)


async def _send_late(response: Answer, heartbeat: Heartbeat, send: Send) -> None:
    """Into a stream that its heartbeat has begun. What would have had a status of its own is its last event."""
    content = response.content
    if response.status_code >= 400:
        content = b"%b%b\n\n" % (heartbeat.error_event, content)
    await send({"type": "http.response.body", "body": content})


async def _send_parts(response: EventStream, send: Send, client: Client | None, heartbeat: Heartbeat | None) -> None:
    source, is_over = response.source, False
    direct = source if client is not None and isinstance(source, DirectSource) else None
    if heartbeat is not None:
        heartbeat.follow(response.meter)
    if client is not None and direct is not None:  # mypy does not see that one follows from the other
        direct.connect(client)
    async for part in source:
        is_over = direct is not None and direct.is_over
        if part and not is_over and client is not None and client.is_ready:
            client.write(part)
        else:
            if client is not None:
                client.flush()
            await send({"type": "http.response.body", "body": part, "more_body": not is_over})
        del part  # the next one may be long in coming
    if not is_over:
        await send({"type": "http.response.body", "body": b""})


async def _send_whole(answer: Answer, send: Send, client: Client | None) -> None:
    headers = _encoded(answer.headers)
    if answer.status_code != 304:  # there it would be that of the content
        headers.append((b"content-length", b"%d" % len(answer.content)))
    if client is None or STOPPING.is_asked or not client.answer(answer.status_code, headers, answer.content):
        await send(_start(answer.status_code, headers))
        await send({"type": "http.response.body", "body": answer.content})


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    encoded = [(_wire_name(name), value.encode("latin-1")) for name, value in headers.items()]
    if STOPPING.is_asked:  # so that no client sends its next request into a connection that is just closed
        encoded.append((b"connection", b"close"))
    return encoded


@lru_cache(maxsize=256)
def _wire_name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _exact_routes(resolver: URLResolver) -> dict[str, View]:
    """The routes that have no parameters, by their whole path."""
    plain = (pattern for pattern in resolver.url_patterns if isinstance(pattern, URLPattern))
    paths = {f"{API_PREFIX}{pattern.pattern}": pattern.callback for pattern in plain if "<" not in str(pattern.pattern)}
    return {path: _bare(callback) for path, callback in paths.items()}


@cache
def _bare(callback: Any) -> View:
    """A view without what `as_view` puts around it, which is for pages: marks about CSRF, Django's kind of request."""
    view_class: type[AsyncAPIView] = callback.view_class

    def answer(request: LeanRequest, **arguments: Any) -> Awaitable[Response]:
        return view_class().dispatch(request, **arguments)

    return answer


async def _lifespan(receive: Receive, send: Send) -> None:
    """Make the worker's runtime before the first request and close it after the last."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await start_runtime()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop_runtime()
            await send({"type": "lifespan.shutdown.complete"})
            return
