"""Long answers, row by row: the one bridge from synchronous rows to the event loop."""

from collections.abc import AsyncIterator, Iterator
from itertools import islice

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse

LINES_PER_CHUNK = 500


def streamed(
    request: HttpRequest, lines: Iterator[str], *, content_type: str, headers: dict[str, str]
) -> StreamingHttpResponse:
    """The lines as a response that is never whole in memory, under ASGI and WSGI alike.

    (Django gathers a synchronous iterator into a list before it sends it from an event loop.)"""
    content = _from_thread(lines) if isinstance(request, ASGIRequest) else _chunks(lines)
    return StreamingHttpResponse(content, content_type=content_type, headers=headers)


def _chunks(lines: Iterator[str]) -> Iterator[str]:
    while chunk := _chunk(lines):
        yield chunk


def _chunk(lines: Iterator[str]) -> str:
    return "".join(islice(lines, LINES_PER_CHUNK))


async def _from_thread(lines: Iterator[str]) -> AsyncIterator[str]:
    while chunk := await sync_to_async(_chunk)(lines):
        yield chunk
