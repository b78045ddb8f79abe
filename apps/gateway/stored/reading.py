"""Reading what is stored, in threads: one read at a time of each organization, the others of it in their order."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from apps.gateway.errors import TOO_MANY_WAITING, GatewayError
from apps.gateway.server.bridge import Busy, LastingBridge

MOST_WAITING: Final = 64
"""Reads of one organization that wait in one worker. What is read may have 20 MB; who waits has read nothing yet."""
LONGEST_WAIT_S: Final = 10.0
"""Who has waited for so long is told to come again: its client may have given up."""

Result = TypeVar("Result")


class Readers:
    """The threads are shared by as many organizations as read at the same time, however much one of them reads."""

    def __init__(self) -> None:
        self._bridge = LastingBridge("reading what is stored")
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Organizations that read, and who else of them wants to."""

    async def read(self, organization_id: str, query: Callable[[], Result]) -> Result:
        """The result of `query`, which may be called twice. Raises GatewayError (429) when too much of the organization
        waits, Unavailable."""
        await self._take_turn(organization_id)
        return await self._bridge.run(query, over=partial(self._pass_on, organization_id))

    def close(self) -> None:
        """No more reads."""
        self._bridge.close()

    async def _take_turn(self, organization_id: str) -> None:
        queue = self._waiting.get(organization_id)
        if queue is None:
            self._waiting[organization_id] = deque()
            return
        if len(queue) >= MOST_WAITING:
            message = f"Your organization has {len(queue)} reads of stored responses waiting here: send fewer at once."
            raise GatewayError(TOO_MANY_WAITING, message)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await mine
        except (TimeoutError, asyncio.CancelledError) as error:  # whoever leaves, or gives up, is in nobody's way
            if mine.cancelled():
                with suppress(ValueError):  # it was passed over already
                    queue.remove(mine)
            else:
                self._pass_on(organization_id)
            if isinstance(error, TimeoutError):
                raise Busy("what your organization has stored is read too slowly") from None
            raise

    def _pass_on(self, organization_id: str) -> None:
        """The next of the organization may begin."""
        queue = self._waiting[organization_id]
        while queue:
            following = queue.popleft()
            if not following.done():
                following.set_result(None)
                return
        del self._waiting[organization_id]
