"""Re-rating: what was billed of a model in a window is corrected to the prices that are in force for that time now.

Applied organization by organization, each in one database transaction under the lock of the model: what is done stays
done, what is not is found again. Beside traffic and posting, any number of times, from any number of processes."""

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final, NamedTuple

from django.db import connection, transaction

from apps.billing import grants
from apps.billing.models import ACTOR_LENGTH, ReratedUsage, Rerating, ReratingStatus
from apps.billing.pricing.book import PriceBook
from apps.billing.pricing.loading import load_book, load_versions
from apps.billing.pricing.records import BilledRequest, Window, billed_in, organizations_in, unposted_in
from apps.billing.pricing.totals import Change, ChangeTable, change_table
from apps.catalog.contracts import Price
from apps.core.errors import Conflict, InvalidInput, NotFound

MAX_REASON: Final = 300
"""Characters: the ledger's reason names model and window too."""
BATCH_ROWS: Final = 1_000
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Prices:
    """The prices of a model for any moment, by what was known at one."""

    versions: tuple[Price, ...]
    book: PriceBook

    def of(self, request: BilledRequest, model_id: str) -> Price | None:
        """The price in force for the request's time; None before the first version."""
        for version in self.versions:
            if version.starts_at <= request.began:
                return self.book.price_for(request.organization_id, model_id, version, moment=request.began)
        return None


class _Rated(NamedTuple):
    """A request and what it should cost, in nano-USD; `uncharged_nanos` is what its hold leaves out of that."""

    request: BilledRequest
    after_nanos: int
    price: Price | None
    uncharged_nanos: int = 0

    @property
    def delta_nanos(self) -> int:
        """Above zero the organization pays more."""
        return self.after_nanos - self.request.standing_nanos


@transaction.atomic
def preview_rerating(window: Window) -> ChangeTable:
    """What a re-rating of the window would change. Writes nothing.

    Raises InvalidInput for an empty window and NotFound for a model without prices."""
    _check_window(window)
    prices = _prices(window.model_id)
    changes: dict[str, Change] = defaultdict(Change)
    for rated in _rated(window, prices):
        change = changes[rated.request.organization_id]
        change.count(rated.request.standing_nanos, rated.after_nanos, uncharged_nanos=rated.uncharged_nanos)
    return change_table(changes, unposted=unposted_in(window))


def rerate(window: Window, *, reason: str, actor: str) -> Rerating | None:
    """Correct the window, and return the re-rating when it is done; one of the same window that broke off is finished.

    None when there is nothing to correct: then nothing is written. Others of the model that broke off are finished
    before. Raises InvalidInput for an empty window or reason, NotFound for a model without prices, and Conflict while
    records of the window wait for posting."""
    rerating = start_rerating(window, reason=reason, actor=actor)
    if rerating is None:
        return None
    for earlier in _unfinished(window.model_id):
        finish(earlier)
    return Rerating.objects.get(pk=rerating.pk)


@transaction.atomic
def start_rerating(window: Window, *, reason: str, actor: str) -> Rerating | None:
    """Note the wish for a re-rating, which `finish_all` fulfils; the unfinished one of the same window if there is one.

    None when nothing of the window would change; while another one of the model is under way nobody can say. Raises as
    `rerate`."""
    _check_window(window)
    if not 1 <= len(reason.strip()) <= MAX_REASON:
        raise InvalidInput(f"the reason has 1 to {MAX_REASON} characters; customers see it")
    _lock(window.model_id)
    under_way = _unfinished(window.model_id)
    for earlier in under_way:
        if _window_of(earlier) == window:
            return earlier
    prices = _prices(window.model_id)
    _check_posted(window)
    if not under_way and not any(rated.delta_nanos for rated in _rated(window, prices)):
        return None
    rerating: Rerating = Rerating.objects.create(
        model=window.model_id,
        starts_at=window.start,
        ends_at=window.end,
        reason=reason.strip(),
        created_by=actor[:ACTOR_LENGTH],
    )
    return rerating


def finish_all() -> int:
    """Finish every re-rating that is under way, whoever began it, oldest first; returns how many.

    One whose window has records that wait for posting, and all later ones of its model, wait for the next call."""
    done = 0
    waiting: set[str] = set()
    for rerating in Rerating.objects.filter(status=ReratingStatus.APPLYING).order_by("id"):
        if rerating.model in waiting:
            continue
        try:
            finish(rerating)
        except Conflict as error:
            waiting.add(rerating.model)
            log.info("re-rating waits: %s", error.message, extra={"rerating": rerating.id})
        else:
            done += 1
    return done


def finish(rerating: Rerating) -> None:
    """Do what is left of a re-rating. Prices are those that were known when it was begun.

    Raises Conflict while records of its window wait for posting."""
    window = _window_of(rerating)
    _check_posted(window)
    prices = _prices(window.model_id, known_at=rerating.created_at)
    for organization_id in organizations_in(window):
        if not _correct(rerating, window, prices, organization_id=organization_id):
            return
    with transaction.atomic():
        _lock(window.model_id)
        if Rerating.objects.filter(pk=rerating.pk, status=ReratingStatus.APPLYING).update(
            status=ReratingStatus.APPLIED
        ):
            log.info("re-rating applied", extra={"rerating": rerating.id, "model": rerating.model})


def organization_changes(rerating: Rerating) -> list[tuple[str, int, int]]:
    """What it did: (slug, corrected requests, difference in nano-USD) of each organization, by slug."""
    query = (
        "SELECT coalesce(slug, organization_id), count(*), sum(delta_nanos)::bigint FROM billing_reratedusage rerated"
        " LEFT JOIN accounts_organization owner ON owner.id = rerated.organization_id"
        " WHERE rerating_id = %s GROUP BY 1 ORDER BY 1"
    )
    with connection.cursor() as cursor:
        cursor.execute(query, [rerating.pk])
        return [(slug, number, total) for slug, number, total in cursor.fetchall()]


@transaction.atomic
def _correct(rerating: Rerating, window: Window, prices: _Prices, *, organization_id: str) -> bool:
    """Correct one organization, once; False when somebody else has finished the whole re-rating meanwhile.

    Its wallet is locked last and briefly: posting goes on while the records are read."""
    _lock(window.model_id)
    if not Rerating.objects.filter(pk=rerating.pk, status=ReratingStatus.APPLYING).exists():
        return False
    if ReratedUsage.objects.filter(rerating=rerating, organization_id=organization_id).exists():
        return True
    total = 0
    rows = _corrections(rerating, window, prices, organization_id=organization_id)
    while batch := list(islice(rows, BATCH_ROWS)):
        total += sum(row.delta_nanos for row in batch)
        ReratedUsage.objects.bulk_create(batch)
    if total:
        grants.correct_usage(
            organization_id,
            total,
            idempotency_key=f"rerate:{rerating.id}:{organization_id}",
            reason=_words(rerating),
            actor=rerating.created_by,
        )
    return True


def _corrections(
    rerating: Rerating, window: Window, prices: _Prices, *, organization_id: str
) -> Iterator[ReratedUsage]:
    for rated in _rated(window, prices, organization_id=organization_id):
        if rated.delta_nanos and rated.price is not None:
            yield ReratedUsage(
                rerating=rerating,
                organization_id=organization_id,
                request_id=rated.request.request_id,
                delta_nanos=rated.delta_nanos,
                price_version_id=rated.price.version_id,
                price_rule_id=rated.price.rule_id,
            )


def _rated(window: Window, prices: _Prices, *, organization_id: str | None = None) -> Iterator[_Rated]:
    """Each request with what it should cost, and the price that says so.

    Never more than was held for it: that was agreed when it was admitted. What had no price keeps its cost."""
    for request in billed_in(window, organization_id=organization_id):
        price = prices.of(request, window.model_id)
        if price is None:
            yield _Rated(request, request.standing_nanos, None)
            continue
        full = request.at(price)
        after = full if request.hold_nanos is None else min(full, request.hold_nanos)
        yield _Rated(request, after, price, full - after)


def _prices(model_id: str, *, known_at: datetime | None = None) -> _Prices:
    versions = load_versions(model_id, known_at=known_at)
    if not versions:
        raise NotFound(f"there is no price of a model {model_id!r}")
    return _Prices(versions, load_book(known_at=known_at))


def _unfinished(model_id: str) -> list[Rerating]:
    return list(Rerating.objects.filter(model=model_id, status=ReratingStatus.APPLYING).order_by("id"))


def _window_of(rerating: Rerating) -> Window:
    return Window(rerating.model, rerating.starts_at, rerating.ends_at)


def _check_window(window: Window) -> None:
    if window.start >= window.end:
        raise InvalidInput("the window is empty: its end is not after its beginning")


def _check_posted(window: Window) -> None:
    if waiting := unposted_in(window):
        raise Conflict(
            f"{waiting} requests of the window wait for posting, which takes seconds: try again, or end it earlier"
        )


def _lock(model_id: str) -> None:
    """Until the end of the database transaction nobody else corrects the model."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"rerate:{model_id}"])


def _words(rerating: Rerating) -> str:
    start, end = (f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for moment in (rerating.starts_at, rerating.ends_at))
    return f"Corrected prices of {rerating.model}, {start} to {end} UTC: {rerating.reason}"
