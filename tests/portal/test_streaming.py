"""Long files leave in pieces, from an event loop and from a thread alike."""

from collections.abc import Iterator

import pytest
from django.http import HttpRequest
from django.test import AsyncRequestFactory, RequestFactory

from apps.portal.streaming import LINES_PER_CHUNK, streamed

LINES = [f"line {number}\n" for number in range(LINES_PER_CHUNK * 2 + 1)]


def taken_from(lines: list[str], taken: list[str]) -> Iterator[str]:
    """The lines, each noted in `taken` when it is asked for."""
    for line in lines:
        taken.append(line)
        yield line


def test_a_thread_sends_pieces(rf: RequestFactory) -> None:
    pieces = iter(_response(rf.get("/"), LINES, taken := []).streaming_content)
    first = next(pieces)
    assert len(taken) == LINES_PER_CHUNK
    assert b"".join([first, *pieces]).decode() == "".join(LINES)


@pytest.mark.asyncio
async def test_an_event_loop_sends_pieces() -> None:
    taken: list[str] = []
    response = _response(AsyncRequestFactory().get("/"), LINES, taken)
    assert response.is_async
    sizes = []
    body = b""
    async for piece in response.streaming_content:
        sizes.append(len(taken))
        body += piece
    assert sizes[0] == LINES_PER_CHUNK
    assert body.decode() == "".join(LINES)


def _response(request: HttpRequest, lines: list[str], taken: list[str]):  # type: ignore[no-untyped-def]  # Django's
    return streamed(request, taken_from(lines, taken), content_type="text/plain", headers={})
