"""The doorway in front of parsing and admission: in each turn of the event loop a few requests begin, and every
organization that waits has its share of them.

What a request costs the loop comes in bursts: one customer with hundreds of connections makes hundreds of requests
ready at once, and without a doorway everybody else stands behind all of them, in every phase of a request anew. With
it they wait here, at no cost, in a queue of their own. A loop that is not busy turns so quickly that nobody waits.
"""

import asyncio
import math
from collections import deque
from typing import Final

from apps.gateway.errors import GATEWAY_OVERLOADED, TOO_MANY_WAITING, GatewayError

BODY_BYTES_PER_START: Final = 64 << 10
"""Parsing a body takes as long as it is large: so many bytes more count as another start."""
MOST_STARTS: Final = 64
"""No body counts for more than so many."""
STARTS_ALONE: Final = 32
"""Begin in a turn while no other organization is there to be kept waiting: work that is done together is cheaper."""
SHARED_S: Final = 60.0
"""An organization counts as being there for so long after its last request."""
MOST_WAITING: Final = 1_000
"""Requests of one organization that wait in one worker."""
MOST_WAITING_BYTES: Final = 128 << 20
"""The bodies of those; a single one may be larger than what is left."""
LONGEST_WAIT_S: Final = 10.0
"""Who has waited for so long is told to come again: its client may have given up."""


class _Waiting:
    """One request."""

    __slots__ = ("is_alone", "may_begin", "since", "size", "starts")

    def __init__(self, may_begin: "asyncio.Future[None]", size: int, *, since: float, is_alone: bool) -> None:
        self.may_begin = may_begin
        self.size = size
        self.starts = _starts(size)
        self.since = since
        self.is_alone = is_alone
        """No other request of its organization waited when it came."""


class _Queue:
    """What waits of one organization, in the order in which it came."""

    __slots__ = ("answers", "bytes", "earned", "requests")

    def __init__(self) -> None:
        self.answers: deque[_Waiting] = deque()
        self.requests: deque[_Waiting] = deque()
        self.bytes = 0
        self.earned = 0
        """Starts that it was given for its first one, which needs more."""

    def __len__(self) -> int:
        return len(self.answers) + len(self.requests)


class Doorway:
    """One a worker. `starts_per_turn` of 0 lets everybody in at once."""

    def __init__(self, starts_per_turn: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._starts_per_turn = self._room = starts_per_turn
        self._is_turning = False
        self._queues: dict[str, _Queue] = {}
        self._longest_wait_s = 0.0
        self._entered: set[str] = set()
        """Organizations that had a start in this turn."""
        self._latest = ""
        self._shared_until = 0.0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return sum(len(queue) for queue in self._queues.values())

    def lets_in(self, organization_id: str, size: int) -> bool:
        """Whether a request with a body of `size` bytes may begin at once; if not, it must `wait`."""
        if not self._starts_per_turn:
            return True
        if organization_id != self._latest:
            if self._latest:  # the first one of all shares with nobody
                self._shared_until = self._loop.time() + SHARED_S
            self._latest = organization_id
        if not self._is_turning:
            self._is_turning = True
            self._loop.call_soon(self._turn)
        elif self._room <= 0 and not self._is_first(organization_id):
            return False
        self._entered.add(organization_id)
        self._room -= 1 if size < BODY_BYTES_PER_START else _starts(size)
        return True

    def _is_first(self, organization_id: str) -> bool:
        """Whether it has nothing waiting and came first in this turn: then it waits for nobody, within a bound."""
        is_known = organization_id in self._entered or organization_id in self._queues
        return not is_known and len(self._entered) < STARTS_ALONE

    async def wait(self, organization_id: str, size: int) -> None:
        """Return when the request may begin. Raises GatewayError: 429 when too many of its organization wait, 503 when
        it has waited for too long."""
        queue = self._queues.setdefault(organization_id, _Queue())
        if len(queue.requests) >= MOST_WAITING or (queue.requests and queue.bytes + size > MOST_WAITING_BYTES):
            message = f"Your organization has {len(queue.requests)} requests waiting to begin here: send fewer at once."
            raise GatewayError(TOO_MANY_WAITING, message)
        request = _Waiting(self._loop.create_future(), size, since=self._loop.time(), is_alone=not queue.requests)
        queue.requests.append(request)
        await self._until_let_in(organization_id, request)

    async def turn(self, organization_id: str, size: int) -> None:
        """The same for an answer of so many bytes that is to be worked on. It goes before the organization's requests,
        and nobody who has come so far is turned away."""
        if not self.lets_in(organization_id, size):
            queue = self._queues.setdefault(organization_id, _Queue())
            answer = _Waiting(self._loop.create_future(), size, since=math.inf, is_alone=False)
            queue.answers.append(answer)
            await self._until_let_in(organization_id, answer)

    async def _until_let_in(self, organization_id: str, one: _Waiting) -> None:
        queue = self._queues[organization_id]
        queue.bytes += one.size
        try:
            await one.may_begin
        except asyncio.CancelledError:
            for those in (queue.requests, queue.answers):
                if one in those:  # else it was just let in
                    those.remove(one)
                    queue.bytes -= one.size
            if not queue and self._queues.get(organization_id) is queue:  # others may wait in a new one by now
                del self._queues[organization_id]
            raise

    def take_longest_wait_s(self) -> float:
        """How long, since this was asked last, somebody waited who had nobody of its own before it: what an
        organization with few requests feels."""
        waits = [self._loop.time() - queue.requests[0].since for queue in self._queues.values() if _is_light(queue)]
        longest_s, self._longest_wait_s = max([self._longest_wait_s, *waits]), 0.0
        return longest_s

    def _turn(self) -> None:
        """The loop has done what was ready. In each round every organization that waits earns a start."""
        now = self._loop.time()
        self._room = self._starts_per_turn if now < self._shared_until else STARTS_ALONE
        self._entered.clear()
        queues = self._queues
        if not queues:
            self._is_turning = False
            return
        while self._room > 0 and queues:
            organization_id = next(iter(queues))
            queue = queues.pop(organization_id)
            first = (queue.answers or queue.requests)[0]
            # A lone queue need not go round to earn what its request needs.
            queue.earned = first.starts if not queues else queue.earned + 1
            if queue.earned >= first.starts:
                self._let_in(organization_id, queue, now)
            if queue:
                queues[organization_id] = queue  # behind all others
        self._loop.call_soon(self._turn)

    def _let_in(self, organization_id: str, queue: _Queue, now: float) -> None:
        request = (queue.answers or queue.requests).popleft()
        queue.bytes -= request.size
        queue.earned = 0
        waited_s = now - request.since
        if request.is_alone:
            self._longest_wait_s = max(self._longest_wait_s, waited_s)
        if request.may_begin.done():
            return
        if waited_s > LONGEST_WAIT_S:
            message = "This gateway is too busy to begin your request in time; try again."
            request.may_begin.set_exception(GatewayError(GATEWAY_OVERLOADED, message))
        else:
            self._room -= request.starts
            self._entered.add(organization_id)
            request.may_begin.set_result(None)


def _is_light(queue: _Queue) -> bool:
    return bool(queue.requests) and queue.requests[0].is_alone


def _starts(size: int) -> int:
    return min(1 + size // BODY_BYTES_PER_START, MOST_STARTS)
