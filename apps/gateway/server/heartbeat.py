"""Comments that keep the connection of a stream alive while there is nothing to say.

A comment is no event: clients pass over it, nobody counts or bills it. The first may come before the upstream has
answered, and the start of the answer with it: from then on a failure is the stream's last event, not a status."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from django.conf import settings

from apps.gateway.metering.record import Meter
from apps.gateway.server.direct import Client

COMMENT: Final = b": keep-alive\n\n"
EVENT_STREAM: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
"""The headers of every stream."""

Begin = Callable[[Mapping[str, str]], Awaitable[None]]
"""Sends the start of an answer, status 200 with these headers."""


class Heartbeat:
    """Of one request for a stream. Sends a comment after each `settings.HEARTBEAT_S` in which no output came."""

    __slots__ = (
        "_begin",
        "_beginning",
        "_client",
        "_headers",
        "_is_answered",
        "_loop",
        "_meter",
        "_seen",
        "_send",
        "_timer",
        "error_event",
    )

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        client: Client | None,
        begin: Begin,
        *,
        headers: Mapping[str, str],
        error_event: bytes,
    ) -> None:
        """`headers` beside those of every stream; `error_event` stands before the body of an error."""
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._client = client
        self._begin = begin
        self._headers = headers
        self._meter: Meter | None = None
        self._seen = -1
        self._beginning: asyncio.Task[None] | None = None
        self._is_answered = False
        self.error_event = error_event
        self._timer = self._loop.call_later(settings.HEARTBEAT_S, self._beat)

    def follow(self, meter: Meter) -> None:
        """The upstream has answered: what this meter counts is output."""
        self._meter = meter
        self._seen = meter.output_count

    async def begun(self) -> bool:
        """There is an answer now. Whether its start was sent already."""
        self._is_answered = True
        if self._beginning is None:
            return False
        await self._beginning
        return True

    def stop(self) -> None:
        """The answer is complete, or nobody needs it any more."""
        self._timer.cancel()

    def _beat(self) -> None:
        client, meter = self._client, self._meter
        if not self._is_answered and self._beginning is None:
            self._beginning = asyncio.create_task(self._begin_early())
        elif (meter is None or meter.output_count == self._seen) and client is not None and client.is_ready:
            client.write(COMMENT)
        if self._meter is not None:
            self._seen = self._meter.output_count
        self._timer = self._loop.call_later(settings.HEARTBEAT_S, self._beat)

    async def _begin_early(self) -> None:
        await self._begin({**EVENT_STREAM, **self._headers})
        await self._send({"type": "http.response.body", "body": COMMENT, "more_body": True})
