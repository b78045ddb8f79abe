"""The idempotency keys that requests of this worker have claimed: taken, renewed while they run, ended once.

A claim ends when two things are known, in either order: what the client got, and what the request cost, which is known
when its end stands in the journal. See docs/idempotency.md."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
from django.conf import settings

from apps.core.crash_points import crash_point
from apps.core.scripts import Argument, Script, ScriptClient, StoreAway
from apps.gateway.admission.reservations import Reservations
from apps.gateway.kept import room
from apps.usage.contracts import Outcome, RequestClosed

LEASE_MS: Final = 10_000
"""A claim that is not renewed for so long is lost: its worker died, or cannot reach the store."""
RENEW_S: Final = 3.0
MAX_KEYS: Final = 100_000
"""Keys of one organization that are remembered at the same time."""
MAX_ENDING: Final = 1_000
"""Ends that wait for a store that is away; beyond that the lease ends, and the journal tells."""
RESENT_BYTES: Final = 4 << 20
"""Of answers, when a store comes back: more at a time would take longer than a call may."""
DRAIN_S: Final = 2.0
_FOLDER: Final = Path(__file__).parent / "scripts"
log = logging.getLogger(__name__)


def _script(name: str) -> Script:
    return room.script(_FOLDER / "idempotency.lua", _FOLDER / f"{name}.lua")


CLAIM: Final = _script("claim")
RENEW: Final = _script("renew_claim")
END: Final = _script("end_claim")
OPEN: Final = _script("open_claims")
TOLD: Final = _script("told_all")
SCRIPTS: Final = (CLAIM, RENEW, END, OPEN, TOLD)
_ALL_WORKERS: Final = "crun:claiming"


class State(StrEnum):
    """What became of a key, as the claim script says it."""

    TAKEN = "taken"
    """This request has it now, and must answer for it."""
    RUNNING = "running"
    LOST = "lost"
    """The request that has it gives no sign of life."""
    KEPT = "kept"
    SPENT = "spent"
    """It has ended and cost something, and there is no answer to give again."""
    OTHER_BODY = "other_body"
    FULL = "full"
    CLOSED = "closed"
    """The server may have forgotten keys; nobody may claim for a while."""
    RESTARTED = "restarted"
    """It may have forgotten what it was told last."""
    UNTOLD = "untold"
    """It wants to be told first what this worker has claimed."""
    UNKNOWN = "unknown"
    """The server was never told anything of the organization's keys, or has forgotten all of it."""


class Why(StrEnum):
    """Why there is no answer to a request that cost something."""

    LOST = "lost"
    """It never became whole, or the client left, or the process died."""
    LARGE = "large"
    DROPPED = "dropped"
    """Newer answers needed the room."""


class KeyedRequest(msgspec.Struct, frozen=True):
    """A request with its idempotency key, as the store knows both: as digests."""

    organization_id: str
    name: str
    body: str
    request_id: str

    @property
    def index(self) -> str:
        """The Redis key that all about the organization's idempotency keys hangs on."""
        return f"crun:{{{self.organization_id}}}:idempotency"


class Found(msgspec.Struct, frozen=True):
    """What became of a key: `request_id` is the one that has it. Of a server that was RESTARTED `age_ms` ago, `told_ms`
    is until when (Unix ms) the one of `epoch` is known to remember everything; 0 is not known."""

    state: State
    request_id: str = ""
    cost_nanos: int = 0
    answer: bytes = b""
    why: Why = Why.LOST
    wait_ms: int = 0
    epoch: str = ""
    told_ms: int = 0
    age_ms: int = 0


class Claim(msgspec.Struct):
    """A key that a running request has. `answer` is what is to be kept of it, sealed; `why` says why there is none."""

    keyed: KeyedRequest
    answer: bytes | None = None
    why: Why = Why.LOST
    is_over: bool = False
    closed: RequestClosed | None = None
    ending: tuple[Argument, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether its record is closed as that of a whole answer."""
        return self.closed is not None and self.closed.outcome is Outcome.COMPLETED


class Claims:
    """Made on the event loop of its worker, which runs `run` for as long as it lives."""

    def __init__(self, store: ScriptClient, reservations: Reservations) -> None:
        self._store = store
        self._reservations = reservations
        self._loop = asyncio.get_running_loop()
        self._worker = f"{socket.gethostname()}-{os.getpid()}"
        self._running: dict[str, Claim] = {}
        self._ending: dict[str, Claim] = {}
        """What the store has not confirmed yet."""

    @property
    def unfinished(self) -> int:
        """Claims that run, or whose end the store does not know."""
        return len(self._running) + len(self._ending)

    async def take(self, keyed: KeyedRequest, *, instead_of: str = "") -> Found:
        """Claim the key, or learn what became of it. Raises StoreAway.

        `instead_of` is a request whose claim is lost and that is known to have cost nothing. When the key is TAKEN,
        `begin` and `finish` must follow."""
        found = await self._ask(keyed, instead_of)
        if found.state is State.UNTOLD:
            self._tell_all()
            found = await self._ask(keyed, instead_of)
        return Found(State.CLOSED, wait_ms=int(1000 * RENEW_S)) if found.state is State.UNTOLD else found

    async def _ask(self, keyed: KeyedRequest, instead_of: str) -> Found:
        may_be_taken = True
        try:
            reply = await self._store.call(
                CLAIM, keyed.index, keyed.name, keyed.body, keyed.request_id, LEASE_MS, _kept_ms(), MAX_KEYS,
                self._worker, instead_of,
            )  # fmt: skip
            may_be_taken = False
            return _read(reply)
        except StoreAway as error:
            may_be_taken = error.was_sent
            raise
        finally:
            if may_be_taken:
                self._end(Claim(keyed))

    async def open(self, keyed: KeyedRequest, *, closed_ms: int, epoch: str = "") -> None:
        """Let the server remember keys of the organization from now on, and take none for `closed_ms`. `epoch` is what
        it said of itself when it was found RESTARTED."""
        await self._store.call(OPEN, keyed.index, closed_ms, epoch)

    def begin(self, keyed: KeyedRequest) -> Claim:
        """The claim of a key that was taken: renewed until it ends."""
        claim = self._running[keyed.request_id] = Claim(keyed)

        def told(closed: RequestClosed) -> None:
            claim.closed = closed
            if claim.is_over:
                self._end(claim)

        self._reservations.watch(keyed.request_id, told)
        return claim

    def finish(self, claim: Claim) -> None:
        """The client got what it gets, `claim.answer` if that was whole. The claim ends when the cost is known."""
        if claim.is_over:
            return
        claim.is_over = True
        if claim.closed is None and self._reservations.is_running(claim.keyed.request_id):
            return  # its end does not stand in the journal yet: it will be told
        self._end(claim)

    def spend(self, keyed: KeyedRequest, lost_request_id: str, cost_nanos: int) -> None:
        """The request whose claim was lost has cost something: nobody else may have its key."""
        lost = msgspec.structs.replace(keyed, request_id=lost_request_id)
        self._send(Claim(lost, is_over=True, ending=_spent(cost_nanos, Why.LOST)))

    async def run(self) -> None:
        """Renew what runs, and tell again what the store did not take, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S)
            if not self._store.is_away:
                self._tell_all()

    def _tell_all(self) -> None:
        """Everything that this worker has claimed, and then that this is all: a connection that breaks in between loses
        that too, for calls are made in their order."""
        for claim in self._running.values():
            self._renew(claim)
        if self._tell_again():
            reply = self._store.call(TOLD, _ALL_WORKERS, self._worker, _kept_ms())
            reply.add_done_callback(_retrieve)

    def _tell_again(self) -> bool:
        """The ends that the store did not take, the oldest first, as many as it can swallow at a time; whether these
        are all."""
        room = RESENT_BYTES
        for claim in list(self._ending.values()):
            if room <= 0:
                return False
            room -= len(claim.answer or b"")
            self._send(claim)
        return True

    async def drain(self) -> None:
        """Wait until the store has every end, no longer than the limit, and sign off."""
        deadline = self._loop.time() + DRAIN_S
        while self._ending and self._loop.time() < deadline:  # noqa: ASYNC110 - calls in a queue end one by one
            await asyncio.sleep(0.01)
        if not self.unfinished:  # then nobody needs to wait for what this worker could still tell
            with suppress(StoreAway):
                await self._store.call(TOLD, _ALL_WORKERS, self._worker, _kept_ms(), "stops")

    def _end(self, claim: Claim) -> None:
        """Keep what is worth it, remember what cost something, and forget the rest: then a retry can succeed."""
        self._reservations.unwatch(claim.keyed.request_id)
        cost_nanos = 0
        if claim.closed is not None:
            crash_point("P17")
            cost_nanos = claim.closed.cost_nanos
        if claim.is_whole and claim.answer is not None:
            claim.ending = ("kept", cost_nanos, claim.answer)
        elif cost_nanos:
            claim.ending = _spent(cost_nanos, claim.why if claim.is_whole else Why.LOST)
        else:
            claim.ending = ("free", 0, "")
        self._send(claim)

    def _send(self, claim: Claim) -> None:
        keyed = claim.keyed
        self._running.pop(keyed.request_id, None)
        self._ending[keyed.request_id] = claim
        reply = self._store.call(
            END, keyed.index, keyed.name, keyed.body, keyed.request_id, _kept_ms(), *(claim.ending or ()),
            *room.bounds(),
        )  # fmt: skip
        reply.add_done_callback(lambda done: self._ended(claim, done))

    def _ended(self, claim: Claim, reply: "asyncio.Future[int]") -> None:
        if not reply.cancelled() and reply.exception() is None:
            self._ending.pop(claim.keyed.request_id, None)
        elif len(self._ending) > MAX_ENDING:
            self._ending.pop(claim.keyed.request_id, None)
            log.error("too many ends of idempotency keys wait for the store: retries will look for their receipts")

    def _renew(self, claim: Claim) -> None:
        keyed = claim.keyed
        reply = self._store.call(RENEW, keyed.index, keyed.name, keyed.body, keyed.request_id, LEASE_MS, _kept_ms())
        reply.add_done_callback(_retrieve)


def _spent(cost_nanos: int, why: Why) -> tuple[Argument, ...]:
    return ("spent", cost_nanos, why)


def _kept_ms() -> int:
    return 1000 * int(settings.IDEMPOTENCY_TTL_S)


def _retrieve(reply: "asyncio.Future[int]") -> None:
    """Look at the outcome, or a store that is away is reported as a mistake; the next renewal says the same."""
    if not reply.cancelled():
        reply.exception()


def _read(reply: list[bytes | int]) -> Found:
    """The answer of the claim script. Raises ValueError for one that nobody should see."""
    match reply:
        case [b"taken" | b"full" | b"unknown" | b"untold" as state]:
            return Found(State(state.decode()))
        case [b"closed", int(wait_ms)]:
            return Found(State.CLOSED, wait_ms=wait_ms)
        case [b"restarted", bytes(epoch), bytes(told), int(age_ms)]:
            return Found(State.RESTARTED, epoch=epoch.decode(), told_ms=int(told), age_ms=age_ms)
        case [b"running" | b"lost" | b"other_body" as state, bytes(request_id)]:
            return Found(State(state.decode()), request_id.decode())
        case [b"kept", bytes(request_id), bytes(cost), bytes(answer)]:
            return Found(State.KEPT, request_id.decode(), int(cost), answer)
        case [b"spent", bytes(request_id), bytes(cost), bytes(why)]:
            return Found(State.SPENT, request_id.decode(), int(cost), why=Why(why.decode()))
    raise ValueError(f"not an answer of the claim script: {reply!r}")
