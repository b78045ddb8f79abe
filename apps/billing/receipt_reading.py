"""Finding what a receipt is made of: the record in PostgreSQL, or the journals of this machine until it is there.

Synchronous; the gateway calls it through its bridge."""

import logging
from pathlib import Path

import msgspec
from django.db import Error

from apps.billing.models import PriceRule, ReratedUsage
from apps.billing.pricing.book import BookRule, as_fee, at_share
from apps.billing.pricing.loading import book_rule
from apps.billing.rating import cost_nanos
from apps.billing.receipts import Receipt, Rerated, cache_discount, discount_of, fee_discount, receipt_of
from apps.catalog.contracts import BUCKETS, Price
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.core.errors import NotFound
from apps.usage.contracts import (
    AttemptMade,
    CacheHit,
    GuardrailVerdict,
    Outcome,
    RequestClosed,
    RequestOpened,
    TokenCounts,
)
from apps.usage.lately import find_closed
from apps.usage.models import UsageRecord
from apps.usage.reports import record_of

log = logging.getLogger(__name__)


def find_receipt(organization_id: str, request_id: str, *, journal_root: Path) -> Receipt | None:
    """The receipt of an ended request of the organization; None when there is none that can be seen from here.

    A request moves one way only, from a journal to a record, so journals are read between two looks at the records.
    With PostgreSQL away the journals still answer; what they do not have raises django.db.Error."""
    try:
        if found := find_stored_receipt(organization_id, request_id):
            return found
    except Error:
        if found := _ended_here(organization_id, request_id, journal_root):
            return found
        raise
    return _ended_here(organization_id, request_id, journal_root) or find_stored_receipt(organization_id, request_id)


def _ended_here(organization_id: str, request_id: str, journal_root: Path) -> Receipt | None:
    try:
        closed = find_closed(journal_root, request_id)
    except OSError as error:
        log.error("a journal cannot be read for a receipt: %s", error)
        return None
    if closed is None or closed.opened.organization_id != organization_id:
        return None
    paid = closed.opened.price
    if not paid.rule_id and paid.fee_ppm is None and closed.opened.cache_hit is None:
        return receipt_of(closed, paid)
    try:
        listed, rule = _listing(paid.version_id, paid.rule_id)
    except Error as error:
        log.warning("a receipt is told at the organization's own price: the list price is out of reach: %s", error)
        return receipt_of(closed, paid)
    is_known = listed is not None and (rule is not None or not paid.rule_id)
    return _told(closed, listed, rule) if is_known else receipt_of(closed, paid)


def find_stored_receipt(organization_id: str, request_id: str) -> Receipt | None:
    """The same of records alone: one row by its key, and no journal. Raises django.db.Error."""
    try:
        record = record_of(organization_id, request_id)
    except NotFound:
        return None
    listed, rule = _listing(record.price_version_id, record.price_rule_id)
    paid = rule.applied_to(listed) if rule and listed else listed
    if paid is not None:
        paid = _with_terms(paid, record.fee_ppm, record.cache_share_ppm)
    return _told(_closed(record, paid), listed, rule)


def _listing(version_id: int, rule_id: str) -> tuple[Price | None, BookRule | None]:
    """The list price and the rule of a price book that made the price of a request of them; None for what is unknown.

    A rule that does not exist leaves its part of the cost as a correction, and is told to the operator."""
    version = PriceVersion.objects.filter(pk=version_id).first()
    rule = PriceRule.objects.filter(pk=rule_id).first() if rule_id else None
    if rule is None and rule_id:
        log.error("the price rule of a record does not exist", extra={"price_rule": rule_id})
    return (None if version is None else price_from_version(version)), (None if rule is None else book_rule(rule))


def _told(closed: RequestClosed, listed: Price | None, rule: BookRule | None) -> Receipt:
    """At the list price, with what the rule, an own provider key and the response cache took off it, one after the
    other, and what was corrected since."""
    discounts = [discount_of(closed, listed, rule)] if rule and rule.is_change and listed else []
    own = rule.applied_to(listed) if rule and listed else listed
    fee_ppm, hit = closed.opened.price.fee_ppm, closed.opened.cache_hit
    if own and fee_ppm is not None:
        discounts.append(fee_discount(closed, own))
    if own and hit is not None:
        discounts.append(cache_discount(closed, _with_terms(own, fee_ppm, None), hit.share_ppm))
    return receipt_of(closed, listed, discounts=tuple(discounts), reratings=_reratings(closed))


def _with_terms(price: Price, fee_ppm: int | None, share_ppm: int | None) -> Price:
    """The price of a request with an own provider key, or out of the response cache, or both."""
    return at_share(price if fee_ppm is None else as_fee(price, fee_ppm), share_ppm)


def _reratings(closed: RequestClosed) -> list[Rerated]:
    owner, request_id = closed.opened.organization_id, closed.opened.request_id
    rows = ReratedUsage.objects.for_organization(owner).filter(request_id=request_id).select_related("rerating")
    return [
        Rerated(row.rerating_id, row.rerating.reason, row.rerating.created_at, row.delta_nanos, _overage(closed, row))
        for row in rows.order_by("id")
    ]


def _overage(closed: RequestClosed, row: ReratedUsage) -> int:
    """What the request would have cost at the price of the correction beyond what was held for it."""
    opened = closed.opened
    listed, rule = _listing(row.price_version_id, row.price_rule_id)
    if listed is None or opened.hold_nanos is None:
        return 0
    price, hit = rule.applied_to(listed) if rule else listed, opened.cache_hit
    full = cost_nanos(
        closed.tokens,
        _with_terms(price, opened.price.fee_ppm, None if hit is None else hit.share_ppm),
        request_id=opened.request_id,
        service_tier=closed.service_tier,
        images=opened.images,
    )
    return max(0, full - opened.hold_nanos)


def _closed(record: UsageRecord, price: Price | None) -> RequestClosed:
    """The record as the value that it was written from. What a record does not keep has its default."""
    unknown = Price(
        version_id=record.price_version_id, starts_at=0, input=0, output=0, cache_read=0, cache_write=0, reasoning=0,
        fee_ppm=record.fee_ppm,
    )  # fmt: skip
    opened = RequestOpened(
        request_id=record.request_id,
        organization_id=record.organization_id,
        project_id=record.project_id,
        key_id=record.key_id,
        model=record.model,
        provider=record.provider,
        upstream_model=record.upstream_model,
        streamed=record.streamed,
        price=price or unknown,
        input_estimate=0,
        hold_nanos=record.hold_nanos,
        images=record.images,
        sandbox=record.sandbox,
        balance_nanos=record.balance_before_nanos,
        credential_id=record.credential_id,
        endpoint=record.endpoint,
        cache_hit=None
        if record.cache_share_ppm is None
        else CacheHit(record.cache_share_ppm, record.cost_nanos + record.saved_nanos),
    )
    return RequestClosed(
        opened=opened,
        outcome=Outcome(record.status),
        http_status=record.http_status,
        tokens=TokenCounts(**{bucket: getattr(record, f"{bucket}_tokens") for bucket in BUCKETS}),
        cost_nanos=record.cost_nanos,
        estimated=record.estimated,
        duration_ms=record.duration_ms,
        first_byte_ms=record.first_byte_ms,
        finish_reason=record.finish_reason,
        error_code=record.error_code,
        overage_nanos=record.overage_nanos,
        service_tier=record.service_tier,
        raw_usage=record.raw_usage,
        review=record.review,
        attempts=msgspec.convert(record.attempts, tuple[AttemptMade, ...]),
        guardrails=msgspec.convert(record.guardrails, tuple[GuardrailVerdict, ...]),
    )
