"""Credentials that end by themselves: got when a route needs one, shared, and renewed before they end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from apps.gateway.providers.vendor_errors import BESIDE

PATIENCE_S: Final = 5.0
"""So long one may be in coming: whoever waits has other routes to try."""
RENEWED_BEFORE_S: Final = 300.0
"""It is renewed so long before its end, while the old one serves; half of its life before it, where that is short."""
MARGIN_S: Final = 15.0
"""So long before its end it is not used any more: a request that is on its way must still find it good."""
PAUSE_S: Final = 5.0
"""After a failure nobody is asked for so long: requests fail at once, or go on with the old one."""
MISTRUSTED_AFTER_S: Final = 30.0
"""One that an upstream refuses is got anew, unless it is as young as this: then it was not its age."""
MOST_KEPT: Final = 10_000
log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True):
    """What a credential is got with. `secret` is the catalog's; "" for the role of this machine."""

    kind: str
    """`entra` or `aws`."""
    secret: str
    place: str
    """The cloud, or the region."""
    role: str = ""
    """The ARN of a role of AWS; "" for none."""

    def __repr__(self) -> str:
        return f"Source({self.kind!r}, {self.place!r})"


class Granted(NamedTuple):
    """A credential, and for how many seconds it is good."""

    credential: str
    lifetime_s: float


class NoCredential(Exception):
    """There is none. `is_refused`: what it was asked with is not taken, and somebody has to look.

    The message is for the operator's log and has nothing of a secret."""

    def __init__(self, message: str, *, is_refused: bool = False) -> None:
        super().__init__(message)
        self.is_refused = is_refused


class _Kept:
    """One source: what it gave last, and whoever is asking it now."""

    __slots__ = ("again_at", "before", "credential", "ends_at", "failure", "got_at", "renew_at", "task")

    def __init__(self) -> None:
        self.credential = self.before = ""
        self.got_at = self.renew_at = self.ends_at = self.again_at = 0.0
        self.failure = NoCredential("it was never got")
        self.task: asyncio.Task[None] | None = None


Ask = Callable[[Source], Awaitable[Granted]]


class ShortLivedCredentials:
    """Those of one worker. `ask` gets one of a kind, and raises NoCredential."""

    def __init__(self, ask: Mapping[str, Ask]) -> None:
        self._ask = ask
        self._kept: dict[Source, _Kept] = {}
        self._loop = asyncio.get_running_loop()

    async def get(self, source: Source) -> str:
        """One that is good now. However many need it, it is asked for once. Raises NoCredential within PATIENCE_S."""
        kept = self._kept.get(source)
        if kept is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept = {each: one for each, one in self._kept.items() if one.task is not None}
            kept = self._kept[source] = _Kept()
        now = self._loop.time()
        if now >= kept.renew_at and now >= kept.again_at and kept.task is None:
            kept.task = self._loop.create_task(self._renew(source, kept), name="renewing a credential")
        if now < kept.ends_at:
            return kept.credential
        if kept.task is not None:
            await asyncio.wait({kept.task})  # who leaves does not take it away from the others
        if self._loop.time() < kept.ends_at:
            return kept.credential
        failure = kept.failure
        raise NoCredential(
            str(failure), is_refused=failure.is_refused
        )  # the one kept would keep every request it ended

    def shown(self, source: Source) -> str:
        """What upstreams were shown last, good or not, and before that, with BESIDE in between; "" where there was
        none."""
        kept = self._kept.get(source)
        return "" if kept is None else BESIDE.join(filter(None, (kept.credential, kept.before)))

    def refused(self, source: Source) -> None:
        """An upstream did not take it: it may have been withdrawn. Whoever needs it next gets another one."""
        kept = self._kept.get(source)
        if kept is not None and self._loop.time() - kept.got_at >= MISTRUSTED_AFTER_S:
            kept.renew_at = kept.ends_at = 0.0

    def close(self) -> None:
        """Ask nobody any more."""
        for kept in self._kept.values():
            if kept.task is not None:
                kept.task.cancel()

    async def _renew(self, source: Source, kept: _Kept) -> None:
        kept.again_at = self._loop.time() + PAUSE_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                credential, lifetime_s = await self._ask[source.kind](source)
        except TimeoutError:
            kept.failure = NoCredential("it did not come in time")
        except NoCredential as failure:
            kept.failure = failure
        else:
            kept.before, kept.credential = kept.credential, credential
            kept.got_at, kept.again_at = self._loop.time(), 0.0
            kept.ends_at = kept.got_at + lifetime_s - min(MARGIN_S, lifetime_s / 4)
            kept.renew_at = kept.got_at + lifetime_s - min(RENEWED_BEFORE_S, lifetime_s / 2)
            return
        finally:
            kept.task = None
        kept.again_at = self._loop.time() + PAUSE_S
        log.error("a provider's short-lived credential cannot be renewed: %s", kept.failure)
