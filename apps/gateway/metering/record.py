"""The record of one request: opened before the upstream is called, closed exactly once, whatever happens. No awaits."""

import logging
import re
import time
from collections.abc import Callable
from functools import partial

import msgspec

from apps.billing.rating import cost_of
from apps.catalog.contracts import Target
from apps.core.crash_points import crash_point
from apps.gateway.errors import GatewayError
from apps.gateway.metering.token_usage import NOTHING_TOLD, ToldUsage
from apps.policies.guarding import Guarding
from apps.usage.contracts import (
    AttemptMade,
    GuardrailVerdict,
    Outcome,
    RequestClosed,
    RequestOpened,
    RequestProgress,
    TokenCounts,
)
from apps.usage.journal import Journal

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,40}")
CHECKPOINT_S = 1.0
CHECKPOINT_BYTES = 64 << 10

log = logging.getLogger(__name__)


class Meter:
    """Counts one request into the journal."""

    def __init__(self, journal: Journal, opened: RequestOpened, *, settle: Callable[[RequestClosed], None]) -> None:
        """Write the intent. Raises JournalFull: then nothing may be sent upstream.

        `settle` gets the end, once, when it stands in the journal."""
        journal.open_request(opened)
        crash_point("P3")
        self._journal = journal
        self._settle = settle
        self._opened = opened
        self._started = time.monotonic()
        self._was_sent = False
        self._first_byte_ms: int | None = None
        self.output_count = 0
        """Pieces of output that were noted as received."""
        self._grown_nanos: int | None = None
        self._checkpoint_due = 0.0
        self._unsaved_bytes = 0
        self._told: ToldUsage = NOTHING_TOLD
        self._service_tier = ""
        self._failed: list[AttemptMade] = []
        self._attempt_began_ms: int | None = 0
        """None between two attempts."""
        self.guarding: Guarding | None = None
        """What guards the request: its verdicts are part of the record."""
        self.closed: RequestClosed | None = None

    def reopen(self, opened: RequestOpened) -> None:
        """Go on with another model, or at somebody else's expense, as if nothing had been opened before: by that price
        and what is held for it.

        Raises JournalFull: then nothing may be sent upstream, and the request ends as what it was."""
        self._journal.open_request(opened)
        self._opened = opened
        crash_point("P19")

    @property
    def credential_id(self) -> str:
        """The organization's own provider key that the record names."""
        return self._opened.credential_id

    @property
    def attempts(self) -> int:
        """How many calls of upstreams have failed, each in a way that cannot have cost anything."""
        return len(self._failed)

    def note_failed_attempt(self, error: GatewayError) -> None:
        """The route did not answer, nothing can be charged for that, and perhaps another one is tried."""
        began_ms = self._attempt_began_ms or 0
        opened = self._opened
        self._was_sent = False
        self._attempt_began_ms = None
        self._failed.append(
            AttemptMade(
                model=opened.model,
                provider=opened.provider,
                started_ms=began_ms,
                duration_ms=self._elapsed_ms() - began_ms,
                outcome=Outcome.FAILED,
                http_status=error.kind.status,
                error_code=_word(error.code or ""),
                paid_by="customer" if opened.is_byok else "nobody" if opened.sandbox else "operator",
                credential_id=opened.credential_id,
            )
        )

    def route_to(self, target: Target) -> None:
        """The record names the route that was tried last: the one that answered, if any did.

        What an earlier route got and failed to answer is free for the customer, by the published table."""
        self._was_sent = False
        if self._attempt_began_ms is None:
            self._attempt_began_ms = self._elapsed_ms()
        if target.provider != self._opened.provider or target.upstream_model != self._opened.upstream_model:
            self._opened = msgspec.structs.replace(
                self._opened, provider=target.provider, upstream_model=target.upstream_model
            )

    def note_nobody_asked(self) -> None:
        """It ends before any route was tried or kept answer given: the record names none."""
        self._opened = msgspec.structs.replace(
            self._opened, provider="", upstream_model="", credential_id="", cache_hit=None
        )

    def note_sent(self) -> None:
        """An upstream has the request: it may charge for it from now on."""
        self._was_sent = True

    def note_refused(self) -> None:
        """The upstream answered with an error instead: it charges nothing."""
        self._was_sent = False

    def received(self, size: int, output_count: int) -> None:
        """Note output received from the upstream: `size` bytes more, `output_count` pieces in all.

        The first piece, and then every second or 64 KiB, is written to the journal."""
        now = time.monotonic()
        if self._first_byte_ms is None:
            self._first_byte_ms = int((now - self._started) * 1000)
        self._unsaved_bytes += size
        self.output_count = output_count
        if output_count and (now >= self._checkpoint_due or self._unsaved_bytes >= CHECKPOINT_BYTES):
            self._checkpoint_due = now + CHECKPOINT_S
            self._unsaved_bytes = 0
            self._checkpoint()

    def note_hold(self, hold_nanos: int) -> bool:
        """What is held by now, before anything that only this covers is delivered; whether the journal knows."""
        if hold_nanos == self._opened.hold_nanos:
            return True
        self._grown_nanos = hold_nanos
        if not self._checkpoint():
            return False
        self._opened = msgspec.structs.replace(self._opened, hold_nanos=hold_nanos)
        return True

    def cost_of(self, tokens: TokenCounts) -> int:
        """What the request costs when it ends with these tokens."""
        return cost_of(self._opened, tokens, service_tier=self._service_tier)

    def _checkpoint(self) -> bool:
        entry = RequestProgress(self._opened.request_id, self.output_count, self._grown_nanos)
        return self._journal.checkpoint(entry)

    def note_usage(self, told: ToldUsage, service_tier: str) -> None:
        """What the upstream told, as the record keeps it, and the tier that is billed."""
        self._told = told
        self._service_tier = service_tier

    def close(
        self,
        outcome: Outcome,
        tokens: TokenCounts,
        *,
        estimated: bool = False,
        http_status: int = 200,
        error_code: str = "",
        finish_reason: str = "",
    ) -> RequestClosed:
        """Rate and write the end, and settle it once it is written.

        Closing again changes nothing and returns the first end. No more is billed than was held: what goes beyond it is
        a mistake of an upstream or of our bounds."""
        if self.closed is None:
            billed, overage = self._opened.split(self.cost_of(tokens))
            if overage:
                self._report("an answer cost more than its worst case; the rest is not billed", overage=overage)
            if self._told.violation:
                self._report("the usage that an upstream told breaks a rule", violation=self._told.violation)
            self.closed = RequestClosed(
                opened=self._opened,
                outcome=outcome,
                http_status=http_status,
                tokens=tokens,
                cost_nanos=billed,
                estimated=estimated,
                duration_ms=int((time.monotonic() - self._started) * 1000),
                first_byte_ms=self._first_byte_ms,
                finish_reason=_word(finish_reason),
                error_code=_word(error_code),
                overage_nanos=overage,
                service_tier=self._service_tier,
                raw_usage=self._told.raw,
                review=self._told.violation,
            )
            if self.guarding is not None:
                self.closed = _with_verdicts(self.closed, self.guarding)
            if self._failed:
                self.closed = self._with_attempts(self.closed)
            crash_point("P7")
            self._journal.close_request(self.closed, then=partial(self._written, self.closed))
        return self.closed

    def _with_attempts(self, closed: RequestClosed) -> RequestClosed:
        """The end with all attempts, where there was more than one."""
        attempts = list(self._failed)
        if self._attempt_began_ms is not None:
            is_customers = closed.charged_nanos or closed.opened.is_byok
            paid_by = "customer" if is_customers else "nobody" if closed.opened.sandbox else "operator"
            attempts.append(
                AttemptMade(
                    model=closed.opened.model,
                    provider=closed.opened.provider,
                    started_ms=self._attempt_began_ms,
                    duration_ms=closed.duration_ms - self._attempt_began_ms,
                    outcome=closed.outcome,
                    http_status=closed.http_status,
                    error_code=closed.error_code,
                    paid_by=paid_by,
                    credential_id=closed.opened.credential_id,
                )
            )
        return msgspec.structs.replace(closed, attempts=tuple(attempts)) if len(attempts) > 1 else closed

    def _elapsed_ms(self) -> int:
        return int((time.monotonic() - self._started) * 1000)

    def _written(self, closed: RequestClosed) -> None:
        """The end stands in the journal; until it does, the request keeps what it holds."""
        crash_point("P8")
        self._settle(closed)

    def _report(self, event: str, **facts: object) -> None:
        """A mistake of an upstream, or of our bounds: for a human."""
        opened = self._opened
        names = {"request_id": opened.request_id, "model": opened.model, "provider": opened.provider}
        log.error(event, extra={**names, **facts})

    def close_partial(
        self, outcome: Outcome, tokens: TokenCounts | None, output_count: int, *, error_code: str
    ) -> None:
        """The end of an answer that is not whole, by the published table.

        The upstream told its usage: that. It never got the request: nothing. The client left: the input and what had
        arrived. The upstream broke, or we stopped, after some output: input and that output; before any: nothing."""
        if tokens is not None:
            self.close(outcome, tokens, error_code=error_code)
        elif not self._was_sent or (outcome is not Outcome.CANCELLED and not output_count):
            self.close(outcome, TokenCounts(), error_code=error_code)
        else:
            estimate = TokenCounts(input=self._opened.input_estimate, output=output_count)
            self.close(outcome, estimate, estimated=True, error_code=error_code)


def _with_verdicts(closed: RequestClosed, guarding: Guarding) -> RequestClosed:
    verdicts = tuple(GuardrailVerdict(*verdict) for verdict in guarding.verdicts)
    return msgspec.structs.replace(closed, guardrails=verdicts)


def _word(text: str) -> str:
    """A vendor's code as it may stand in a record: anything but a short plain word is `other`."""
    return text if not text or _WORD.fullmatch(text) else "other"
