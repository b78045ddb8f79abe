"""A DRF view on the event loop: authentication, handler and errors are awaited, and nothing is sent to a thread."""

import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import METHOD_NOT_ALLOWED, SERVER_ERROR, STORE_AWAY, GatewayError
from apps.gateway.runtime import Runtime, current_runtime
from apps.gateway.server.authentication import KeyAuthentication, presented_key
from apps.keys.contracts import KeyGrant

log = logging.getLogger(__name__)


class OneRenderer(BaseContentNegotiation):
    """There is one representation of everything: JSON, or the event stream that the body asks for."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class JsonBytes(HttpResponse):
    """An answer that is JSON already."""

    def __init__(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        super().__init__(content, content_type="application/json", status=status, headers=headers)


class EventStream(StreamingHttpResponse):
    """Server-sent events. Whoever sends it calls `release` or `close` at the end, also when nothing was sent."""

    def __init__(self, source: AsyncGenerator[bytes, None], exchange: Exchange) -> None:
        super().__init__(source, content_type="text/event-stream; charset=utf-8")
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self.source = source
        self._exchange = exchange

    def release(self) -> None:
        """Give back what the answer holds. What `close` does more, Django's signals, nobody here listens to."""
        self._exchange.abandon()

    def close(self) -> None:
        self.release()
        super().close()


class AsyncAPIView(APIView):
    """APIView with an awaited `dispatch`. Handlers find the caller in `self.grant`, the worker in `self.runtime`."""

    grant: KeyGrant
    runtime: Runtime
    request_id: str
    limit_headers: Mapping[str, str] = {}
    """What the caller has left, and the id under which its receipt is found: once they are known."""

    authentication_classes = [KeyAuthentication]
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = OneRenderer
    view_is_async = True

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]  # awaited here
        self.args, self.kwargs = args, kwargs
        self.request_id = getattr(request, "request_id", None) or new_id("req")
        self.request = self.initialize_request(request)
        try:
            response = await self._answer(request.method or "")
        except GatewayError as error:
            response = self.error_response(error)
        except Unavailable as error:
            response = self.error_response(GatewayError(STORE_AWAY, f"Not available right now: {error.message}."))
        except Exception:  # process edge: a bug becomes a 500 that tells nothing but its request id
            log.exception("bug while answering", extra={"request_id": self.request_id})
            response = self.error_response(GatewayError(SERVER_ERROR, f"Internal error; request id {self.request_id}."))
        response.headers["x-request-id"] = response.headers["x-crun-generation-id"] = self.request_id
        for name, value in self.limit_headers.items():
            response.headers[name] = value
        return response

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """The DRF request, without the parsers and authenticators that the data path awaits itself."""
        return Request(request)

    async def _answer(self, method: str) -> HttpResponseBase:
        self.runtime = current_runtime()
        await self.authenticate(self.request)
        name = method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if name == "head" and handler is None:
            handler = getattr(self, "get", None)
        if handler is None:
            self.limit_headers = {"allow": ", ".join(self.allowed_methods)}
            raise GatewayError(METHOD_NOT_ALLOWED, str(MethodNotAllowed(method).detail))
        answer: HttpResponseBase = await handler(self.request, *self.args, **self.kwargs)
        return answer

    def error_response(self, error: GatewayError) -> HttpResponse:
        """The answer that an error becomes."""
        return JsonBytes(error.body(), status=error.kind.status, headers=error.headers())

    async def authenticate(self, request: Request) -> None:
        """Find out who asks. Raises GatewayError (401, 400) or Unavailable."""
        grant = await self.runtime.keys.find(presented_key(request._request.META))
        self.grant = KeyAuthentication.accept(grant)


def json_response(content: object) -> JsonBytes:
    """An object as JSON."""
    return JsonBytes(orjson.dumps(content))
