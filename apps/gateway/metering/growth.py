"""The hold of a stream whose output nobody bounded: it grows ahead of the output, or ends it."""

import asyncio
import sys
from contextlib import suppress
from typing import Final

from apps.billing.admission import Grown, Lack
from apps.billing.holding import GROWTH_TOKENS
from apps.billing.rebuilding import UNOPENED_S
from apps.core.errors import Unavailable
from apps.gateway.admission.decision import Admission
from apps.gateway.admission.refusals import end_of_money
from apps.gateway.admission.reservations import NoteHold, Reservations
from apps.gateway.errors import STORE_AWAY, GatewayError
from apps.gateway.metering.counting import TOKENS, Measure, bound_of, measure_of

AHEAD_TOKENS: Final = GROWTH_TOKENS // 2
"""The hold is asked to grow while it still covers so much output of each choice."""
ENDING_TOKENS: Final = 16
"""What ends a choice, and what stands between its parts, is billed and not seen."""
WORTH_COUNTING_BYTES: Final = 256
LEAST_COUNTED_BYTES: Final = 48
"""The same when money is short. Words that are counted one by one have more tokens than in their sentence."""


class OutputBound:
    """How many tokens a stream's output so far can be billed for: a byte each, and closer once that matters."""

    def __init__(self, measure: Measure, choices: int) -> None:
        self.measure = measure
        self._fresh: list[str | bytes] = []
        self._fresh_bytes = 0
        self._counted = 0
        self._ending = ENDING_TOKENS * choices
        self.tokens = self._ending

    def add(self, piece: str | bytes) -> None:
        """A piece of output: text, or the JSON of what is none."""
        size = len(piece) if isinstance(piece, bytes) else len(piece.encode("utf-8", "replace"))
        self._fresh.append(piece)
        self._fresh_bytes += size
        self.tokens += size

    def count(self, *, least: int) -> bool:
        """Count what came since the last time, if it has so many bytes and can be counted; whether that was done."""
        if self._fresh_bytes < least or not TOKENS.is_loaded(self.measure):
            return False
        text = "".join(piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece for piece in self._fresh)
        self._counted += min(bound_of(TOKENS.count_now(text, self.measure), self.measure), self._fresh_bytes)
        self._fresh.clear()
        self._fresh_bytes = 0
        self.tokens = self._counted + self._ending
        return True

    async def count_closely(self) -> None:
        """Count all of it, even if the vocabulary must be loaded for that: money is at its end."""
        await TOKENS.load(self.measure)
        self.count(least=1)


class Growth:
    """Made for one stream on its event loop; `stop` ends what it still asks for."""

    def __init__(self, admission: Admission, *, note: NoteHold, reservations: Reservations) -> None:
        self._admission = admission
        self._note = note
        self._reservations = reservations
        self._choices = admission.asked.choices
        self._asking: asyncio.Task[Grown] | None = None
        self._lack: Lack | None = None
        self._failure: BaseException | None = None
        self._counted_for = admission.first_output
        self.output = OutputBound(measure_of(admission.model), self._choices)
        self._take(admission.hold_nanos)

    @property
    def is_due(self) -> bool:
        """Whether `keep_up` must be awaited before the output so far may be delivered, or should be."""
        return self.is_due_with(0)

    def is_due_with(self, more_bytes: int) -> bool:
        """The same once so many bytes of output more have come."""
        tokens = self.output.tokens + more_bytes
        if self._lack is None and self._asking is None:
            return tokens > self._covered - AHEAD_TOKENS * self._choices
        return tokens > self._covered

    async def keep_up(self) -> None:
        """Have the output so far held for. It asks ahead and waits only where the hold does not cover the output yet.

        Raises GatewayError when there is no money for it, or the store stays away: nothing more may be delivered."""
        while self.is_due and self.output.count(least=LEAST_COUNTED_BYTES if self._lack else WORTH_COUNTING_BYTES):
            pass
        if self.is_due and self._asking is None:
            await self._ask_now() if self._lack else self._ask()
        while self.output.tokens > self._covered:
            if self._asking is None:
                await self._ask_now()
            else:
                await self._answer()

    async def cover(self, cost_nanos: int) -> None:
        """Have the cost of the whole answer held, where there is money for it: reasoning is billed and not seen."""
        if cost_nanos <= self._hold_nanos:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(UNOPENED_S):
                await self._answer()
                self._ask(cost_nanos)
                await self._answer()
        self.stop()

    def stop(self) -> None:
        """Ask for nothing more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask_now(self) -> None:
        """Ask for output that is there already. Raises GatewayError when it cannot be held for, counted closely."""
        self._ask()
        await self._answer()
        if self.output.tokens <= self._covered:
            return
        if isinstance(self._failure, Unavailable):
            raise GatewayError(STORE_AWAY, f"The answer cannot go on: {self._failure.message}.") from self._failure
        if self._failure is not None:
            raise self._failure
        await self.output.count_closely()
        if self.output.tokens > self._covered and self._lack is not None:
            raise end_of_money(self._lack)

    def _ask(self, wanted_nanos: int = 0) -> None:
        tokens = min(self.output.tokens + GROWTH_TOKENS * self._choices, self._admission.most_output)
        work = self._reservations.grow(
            self._admission.demand,
            wanted_nanos=wanted_nanos or self._admission.worst_nanos(tokens),
            tokens=max(tokens - self._counted_for, 0),
            note=self._note,
        )
        self._counted_for = max(tokens, self._counted_for)
        self._asking = asyncio.create_task(work, name="growth")
        self._asking.add_done_callback(self._answered)

    async def _answer(self) -> None:
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _answered(self, asked: "asyncio.Task[Grown]") -> None:
        self._asking = None
        if asked.cancelled():
            return
        self._failure = asked.exception()
        if self._failure is None:
            self._lack = asked.result().lack
            if self._lack is not None:
                TOKENS.begin_to_load(self.output.measure)
            self._take(asked.result().hold_nanos)

    def _take(self, hold_nanos: int) -> None:
        self._hold_nanos = hold_nanos
        covered = self._admission.output_covered(hold_nanos)
        self._covered = covered if covered < self._admission.most_output else sys.maxsize
