"""The content security policy of all pages but the console's, whose theme needs inline scripts."""

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest
from django.http.response import HttpResponseBase

CONSOLE_PREFIX = "/console/"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; "  # the style sheet's check marks and arrows are data: images
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)

SyncNext = Callable[[HttpRequest], HttpResponseBase]
AsyncNext = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class ContentSecurityPolicy:
    """Middleware, native in both worlds so that no request changes threads for a header.

    It also refuses addresses with a NUL in them: PostgreSQL cannot store or compare one, so no page means anything
    by it."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: SyncNext | AsyncNext) -> None:
        self._get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if "\0" in request.path or "%00" in request.META.get("QUERY_STRING", ""):
            raise SuspiciousOperation("a NUL in the address")
        answer = self._get_response(request)
        if isinstance(answer, HttpResponseBase):
            return protect(request, answer)
        return self._protect_later(request, answer)

    async def _protect_later(self, request: HttpRequest, answer: Awaitable[HttpResponseBase]) -> HttpResponseBase:
        return protect(request, await answer)


def protect(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response with the policy, if it is a page outside the console."""
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    if is_page and not request.path_info.startswith(CONSOLE_PREFIX):
        response.headers.setdefault("Content-Security-Policy", POLICY)
    return response
