"""Receipts: their lines lead to the cost without a gap, and every request has one from the moment it ends."""

from pathlib import Path
from typing import Any

import pytest
from django.db import Error, OperationalError
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from apps.billing import receipt_reading
from apps.billing.posting import post_batch
from apps.billing.rating import cost_of
from apps.billing.receipt_reading import find_receipt
from apps.billing.receipts import Arithmetic, Discount, Payer, Receipt, Rule, receipt_of
from apps.catalog.contracts import BUCKETS, Price, PriceVariant
from apps.core.ids import new_id
from apps.core.money import TOKENS_PER_PRICE_UNIT
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from apps.usage.journal import Journal
from apps.usage.recording import record
from tests import factories

USD = 1_000_000_000
amounts = st.integers(0, 10**12)
maybe = st.none() | amounts
rates = {
    **dict.fromkeys(("input", "output", "cache_read", "cache_write", "reasoning"), amounts),
    **dict.fromkeys(("cache_write_1h", "audio_input", "image_input", "audio_output", "image_output"), maybe),
    **dict.fromkeys(("per_request", "per_image"), st.integers(0, USD)),
}
variants = st.builds(PriceVariant, **rates, min_input_tokens=st.integers(0, 5_000))
prices = st.builds(
    Price, version_id=st.just(1), starts_at=st.just(0.0), variants=st.tuples() | st.tuples(variants), **rates
)
counts = st.builds(TokenCounts, **dict.fromkeys(BUCKETS, st.integers(0, 10_000) | st.just(0)))


def ended(tokens: TokenCounts, price: Price, *, hold: int | None = None, **changes: Any) -> RequestClosed:
    """A request as the meter would have ended it."""
    opened = factories.opened(price=price, hold_nanos=hold, **changes)
    cost = cost_of(opened, tokens)
    billed = cost if hold is None else min(cost, hold)
    return factories.closed(opened, tokens=tokens, cost_nanos=billed, overage_nanos=cost - billed)


def walk(arithmetic: Arithmetic) -> int:
    """From line to line to the cost, in nano-USD."""
    lines = sum(line.exact_femtos for line in arithmetic.lines)
    discounts = sum(discount.exact_femtos for discount in arithmetic.discounts)
    rounded, rest = divmod(lines - discounts + arithmetic.rounding_femtos, TOKENS_PER_PRICE_UNIT)
    assert rest == 0
    return rounded - arithmetic.overage_nanos + arithmetic.correction_nanos


@given(counts, prices, st.none() | st.integers(0, 10**12), st.integers(0, 5))
def test_the_lines_sum_exactly_to_the_cost(tokens: TokenCounts, price: Price, hold: int | None, images: int) -> None:
    closed = ended(tokens, price, hold=hold, images=images)
    arithmetic = receipt_of(closed, price).arithmetic
    assert arithmetic is not None
    assert walk(arithmetic) == closed.cost_nanos
    assert arithmetic.correction_nanos == 0
    assert 2 * abs(arithmetic.rounding_femtos) <= TOKENS_PER_PRICE_UNIT
    for line in arithmetic.lines:
        scale = 1 if line.is_tokens else TOKENS_PER_PRICE_UNIT
        assert line.exact_femtos == line.quantity * line.unit_nanos * scale


@given(counts, prices, st.integers(-USD, USD), st.integers(0, 10**12))
def test_a_cost_that_does_not_follow_from_its_lines_is_shown_and_not_hidden(
    tokens: TokenCounts, price: Price, difference: int, discount: int
) -> None:
    closed = ended(tokens, price)
    closed = replace(closed, cost_nanos=closed.cost_nanos + difference)
    arithmetic = receipt_of(closed, price, discounts=[Discount("rule_1", "Ten percent off", discount)]).arithmetic
    assert arithmetic is not None
    assert walk(arithmetic) == closed.cost_nanos


@pytest.mark.parametrize(
    ("outcome", "tokens", "estimated", "rule"),
    [
        (Outcome.COMPLETED, TokenCounts(input=1), False, Rule.REPORTED),
        (Outcome.COMPLETED, TokenCounts(), False, Rule.REPORTED),
        (Outcome.COMPLETED, TokenCounts(input=1), True, Rule.ESTIMATED_ANSWER),
        (Outcome.CANCELLED, TokenCounts(input=1), True, Rule.CLIENT_LEFT),
        (Outcome.CANCELLED, TokenCounts(input=1), False, Rule.REPORTED),
        (Outcome.CANCELLED, TokenCounts(), False, Rule.NOTHING),
        (Outcome.FAILED, TokenCounts(output=1), True, Rule.UPSTREAM_BROKE),
        (Outcome.FAILED, TokenCounts(), False, Rule.NOTHING),
        (Outcome.INTERRUPTED, TokenCounts(output=1), True, Rule.CHECKPOINT),
        (Outcome.INTERRUPTED, TokenCounts(), False, Rule.NOTHING),
    ],
)
def test_the_rule_is_the_row_of_the_published_table(
    outcome: Outcome, tokens: TokenCounts, estimated: bool, rule: Rule
) -> None:
    closed = factories.closed(outcome=outcome, tokens=tokens, estimated=estimated)
    assert receipt_of(closed, closed.opened.price).rule is rule


@pytest.mark.parametrize(
    ("sandbox", "cost", "payer", "charged"),
    [(False, 5, Payer.CUSTOMER, 5), (False, 0, Payer.OPERATOR, 0), (True, 5, Payer.NOBODY, 0)],
)
def test_who_pays_for_the_attempt(sandbox: bool, cost: int, payer: Payer, charged: int) -> None:
    opened = factories.opened(sandbox=sandbox, balance_nanos=100)
    receipt = receipt_of(factories.closed(opened, cost_nanos=cost), None)
    [attempt] = receipt.attempts
    assert (attempt.paid_by, attempt.cost_nanos, receipt.charged_nanos) == (payer, charged, charged)
    assert (receipt.balance_before_nanos, receipt.balance_after_nanos) == (100, 100 - charged)
    assert receipt.arithmetic is None


@pytest.fixture
def end(db: None) -> RequestClosed:
    """A request with everything that a receipt can show."""
    price = factories.stored_price()
    tokens = TokenCounts(input=101, cache_read=7, output=3, reasoning=2)
    end = ended(tokens, price, hold=10_000, balance_nanos=25 * USD, sandbox=True)
    return replace(end, first_byte_ms=5, finish_reason="stop", raw_usage="{}")


def seen(receipt: Receipt | None) -> Any:
    """A receipt without what only a journal keeps."""
    assert receipt is not None
    opened = replace(receipt.closed.opened, input_estimate=0)
    return replace(receipt.closed, opened=opened), receipt.arithmetic, receipt.price, receipt.rule


def test_journal_and_record_give_the_same_receipt(end: RequestClosed, tmp_path: Path) -> None:
    owner, name = end.opened.organization_id, end.opened.request_id
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open_request(end.opened)
    assert find_receipt(owner, name, journal_root=tmp_path) is None
    journal.close_request(end)
    from_journal = find_receipt(owner, name, journal_root=tmp_path)
    record([end])
    assert seen(find_receipt(owner, name, journal_root=tmp_path / "gone")) == seen(from_journal)
    while post_batch():
        pass
    assert seen(find_receipt(owner, name, journal_root=tmp_path)) == seen(from_journal)
    for stranger in (tmp_path, tmp_path / "gone"):
        assert find_receipt("org_stranger", name, journal_root=stranger) is None
    assert find_receipt(owner, new_id("req"), journal_root=tmp_path) is None


def test_a_request_that_is_shipped_between_the_looks_is_found(
    end: RequestClosed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shipped_meanwhile(root: Path, request_id: str) -> None:
        record([end])

    monkeypatch.setattr(receipt_reading, "find_closed", shipped_meanwhile)
    assert find_receipt(end.opened.organization_id, end.opened.request_id, journal_root=tmp_path) is not None


def test_with_postgresql_away_the_journal_answers_and_nothing_is_called_missing(
    end: RequestClosed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(receipt_reading, "record_of", away)
    owner, name = end.opened.organization_id, end.opened.request_id
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open_request(end.opened)
    with pytest.raises(Error):
        find_receipt(owner, name, journal_root=tmp_path)
    journal.close_request(end)
    assert find_receipt(owner, name, journal_root=tmp_path) is not None


def test_a_record_whose_prices_are_unknown_has_a_receipt_without_lines(end: RequestClosed, tmp_path: Path) -> None:
    unknown = replace(end, opened=replace(end.opened, price=replace(end.opened.price, version_id=999_999)))
    record([unknown])
    receipt = find_receipt(end.opened.organization_id, end.opened.request_id, journal_root=tmp_path)
    assert receipt is not None
    assert (receipt.price, receipt.arithmetic, receipt.closed.cost_nanos) == (None, None, end.cost_nanos)
