"""A DRF view on the event loop: authentication, handler and errors are awaited, and nothing is sent to a thread."""

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.request import Request
from rest_framework.views import APIView

from apps.core.errors import Unavailable
from apps.gateway.errors import METHOD_NOT_ALLOWED, SERVER_ERROR, STORE_AWAY, GatewayError
from apps.gateway.runtime import Runtime, current_runtime
from apps.gateway.server.answer import Answer, JsonBytes, Response
from apps.gateway.server.authentication import KeyAuthentication, presented_key
from apps.gateway.server.lean_request import LeanRequest
from apps.keys.contracts import KeyGrant

log = logging.getLogger(__name__)


class OneRenderer(BaseContentNegotiation):
    """There is one representation of everything: JSON, or the event stream that the body asks for."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        return parsers[0]

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type


class AsyncAPIView(APIView):
    """APIView with an awaited `dispatch`. Handlers find the caller in `self.grant`, the worker in `self.runtime`."""

    grant: KeyGrant
    runtime: Runtime
    request: LeanRequest  # type: ignore[assignment]  # neither Django's nor DRF's: they cost more than an answer
    request_id: str
    limit_headers: Mapping[str, str] = {}
    """What the caller has left, and the id under which its receipt is found: once they are known."""

    authentication_classes = [KeyAuthentication]
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    content_negotiation_class = OneRenderer
    view_is_async = True

    async def dispatch(self, request: LeanRequest, **kwargs: Any) -> Response:  # type: ignore[override]  # awaited here
        """The answer, whatever happens. This is all there is around a handler: `server.asgi` calls it directly."""
        self.kwargs = kwargs
        self.request_id = request.request_id
        self.request = request
        response: Response
        try:
            response = await self._answer(request.method)
        except GatewayError as error:
            response = self.error_response(error)
        except Unavailable as error:
            response = self.error_response(GatewayError(STORE_AWAY, f"Not available right now: {error.message}."))
        except Exception:  # process edge: a bug becomes a 500 that tells nothing but its request id
            log.exception("bug while answering", extra={"request_id": self.request_id})
            response = self.error_response(GatewayError(SERVER_ERROR, f"Internal error; request id {self.request_id}."))
        headers = response.headers
        headers["x-request-id"] = headers["x-crun-generation-id"] = self.request_id
        headers.update(self.limit_headers)
        return response

    async def _answer(self, method: str) -> Response:
        self.runtime = current_runtime()
        await self.authenticate(self.request)
        name = method.lower()
        handler = getattr(self, name, None) if name in self.http_method_names else None
        if name == "head" and handler is None:
            handler = getattr(self, "get", None)
        if handler is None:
            self.check_place()
            self.limit_headers = {"allow": ", ".join(self.allowed_methods).replace("GET", "GET, HEAD")}
            raise GatewayError(METHOD_NOT_ALLOWED, str(MethodNotAllowed(method).detail))
        answer: Response = await handler(self.request, **self.kwargs)
        return answer

    def check_place(self) -> None:
        """Raises GatewayError (404) where the path leads to nothing: that is so with any method."""

    def error_response(self, error: GatewayError) -> Answer:
        """The answer that an error becomes."""
        return JsonBytes(error.body(), status=error.kind.status, headers=error.headers())

    async def authenticate(self, request: LeanRequest) -> None:
        """Find out who asks. Raises GatewayError (401, 400) or Unavailable."""
        grant = await self.runtime.keys.find(presented_key(request.META))
        self.grant = KeyAuthentication.accept(grant)


def json_response(content: object) -> JsonBytes:
    """An object as JSON."""
    return JsonBytes(orjson.dumps(content))
