"""Monthly invoices: what is owed for a closed month, asked for once, and paid when the wallet says so."""

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from apps.accounts.models import Organization
from apps.billing.grants import adjust, charge, write_off
from apps.billing.invoices.credit_notes import CreditNoteDraft, issue_credit_note
from apps.billing.invoices.monthly import issue_due, issue_month, settle
from apps.billing.invoices.months import Month
from apps.billing.ledger import balance_nanos
from apps.billing.models import Invoice, InvoiceStatus
from apps.billing.posting import post_batch
from apps.core.errors import Conflict
from tests.billing import books
from tests.billing.invoices import documents

pytestmark = pytest.mark.django_db
USD = 10**9


@pytest.fixture
def month() -> Month:
    """The month of the tests: movements are written now, so it is the running one, looked at from later."""
    return documents.this_month()


@pytest.fixture
def owner(db: None) -> Organization:
    documents.seller()
    return documents.on_credit()


def lines(invoice: Invoice) -> list[tuple[str, int]]:
    return [(line.description, line.amount_nanos) for line in invoice.lines.all()]


def invoiced(owner: Organization, month: Month) -> Invoice:
    invoice = issue_month(owner.id, month, now=documents.after(month))
    assert invoice is not None
    books.settle_constraints()
    return invoice


def test_usage_by_model_of_exactly_the_utc_month(owner: Organization, month: Month) -> None:
    documents.use(owner, month.start - timedelta(milliseconds=1), 64 * USD, model="before")
    documents.use(owner, month.start, 3 * USD, model="first")
    documents.use(owner, month.end - timedelta(milliseconds=1), 4 * USD, model="last")
    documents.use(owner, month.end, 128 * USD, model="after")
    documents.use(owner, month.start, 256 * USD, model="test", sandbox=True)
    first = issue_month(owner.id, month.previous(), now=timezone.now())
    assert first is not None
    assert first.total_cents == 6400
    invoice = invoiced(owner, month)
    name = month.name
    assert lines(invoice) == [(f"last: 1 requests in {name}", 4 * USD), (f"first: 1 requests in {name}", 3 * USD)]
    assert (invoice.total_cents, invoice.status) == (700, InvoiceStatus.ISSUED)
    assert invoice.due_on == (timezone.now() + timedelta(days=30)).date()


def test_fractions_are_rounded_once_and_carried(owner: Organization, month: Month) -> None:
    """1000 requests of 12 345.678 nano-dollars: what the cents leave out stays in the wallet for the next month."""
    last = month.previous()
    for place in range(9):
        documents.use(owner, last.start + timedelta(hours=place), 1_111_111, model=f"m{place}")
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    assert (invoice.total_nanos, invoice.total_cents) == (9_999_999, 1)
    assert lines(invoice)[-1] == ("Rounding to whole cents", 1)
    documents.paid(owner, 1)
    settle(timezone.now())
    assert balance_nanos(owner.id) == USD - 9_999_999


def test_a_month_is_invoiced_once_whoever_asks(owner: Organization, month: Month) -> None:
    documents.use(owner, month.start, USD)
    now = documents.after(month)
    assert issue_due(now) == 1
    assert issue_due(now) == 0
    assert issue_month(owner.id, month, now=now) is None


def test_nothing_is_issued_while_usage_waits_for_posting(owner: Organization, month: Month) -> None:
    now = documents.after(month)
    documents.use(owner, month.start, USD)
    documents.use(owner, month.end - timedelta(seconds=1), USD, post=False)
    assert issue_due(now) == 0
    with pytest.raises(Conflict, match="not closed"):
        issue_month(owner.id, month, now=now)
    post_batch()
    assert issue_due(now) == 1
    assert Invoice.objects.get().total_cents == 200


def test_nothing_is_issued_while_requests_of_the_month_can_still_run(owner: Organization, month: Month) -> None:
    documents.use(owner, month.start, USD)
    for later in (timedelta(0), timedelta(minutes=24)):
        assert issue_due(month.end + later) == 0
    assert issue_due(month.end + timedelta(minutes=25)) == 1


def test_work_that_waits_for_the_next_month_does_not_hold_this_one_up(owner: Organization, month: Month) -> None:
    documents.use(owner, month.start, USD)
    documents.use(owner, month.end, USD, post=False)
    assert issue_due(documents.after(month)) == 1


def test_months_that_were_slept_through_are_issued_in_order(owner: Organization, month: Month) -> None:
    for back in (3, 1, 0):
        documents.use(owner, month.plus(-back).start, (back + 1) * USD)
    assert issue_due(documents.after(month)) == 3
    found = Invoice.objects.order_by("sequence").values_list("month", "total_cents")
    assert list(found) == [(month.plus(-3).first_day, 400), (month.plus(-1).first_day, 200), (month.first_day, 100)]
    assert -balance_nanos(owner.id) == 7 * USD


def test_late_usage_is_asked_for_with_the_next_month(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    issue_month(owner.id, last, now=timezone.now())
    documents.use(owner, last.start, 2 * USD)
    documents.use(owner, month.start, 3 * USD, model="m")
    invoice = invoiced(owner, month)
    assert invoice.total_cents == 500
    assert lines(invoice)[-1] == ("Carried over from earlier months", 2 * USD)


def test_credit_pays_first_and_only_the_rest_is_asked_for(owner: Organization, month: Month) -> None:
    books.credit(owner, 7 * USD)
    documents.use(owner, month.start, 10 * USD)
    invoice = invoiced(owner, month)
    assert lines(invoice)[-1] == ("Paid from credit", -7 * USD)
    assert invoice.total_cents == 300


def test_a_month_paid_from_credit_has_no_invoice(owner: Organization, month: Month) -> None:
    books.credit(owner, 10 * USD)
    documents.use(owner, month.start, 10 * USD)
    assert issue_month(owner.id, month, now=documents.after(month)) is None


def test_half_a_cent_is_not_asked_for_and_not_lost(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5_000_000)
    assert issue_month(owner.id, last, now=timezone.now()) is None
    documents.use(owner, month.start, 5_000_000)
    assert invoiced(owner, month).total_nanos == 10_000_000


def test_prepaid_organizations_get_none(owner: Organization, month: Month) -> None:
    prepaid = books.organization("Prepaid")
    documents.use(prepaid, month.start, USD)
    assert issue_due(documents.after(month)) == 0


def test_it_is_paid_when_nothing_from_before_its_end_is_owed(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    documents.use(owner, month.start, 100 * USD)
    charge(owner.id, 50 * USD, idempotency_key="fee", reason="A fee of this month")
    books.credit(owner, 4 * USD)
    assert settle(timezone.now()) == 0
    books.credit(owner, USD)
    assert settle(timezone.now()) == 1
    assert settle(timezone.now()) == 0
    invoice.refresh_from_db()
    assert invoice.status == InvoiceStatus.PAID
    assert balance_nanos(owner.id) == -150 * USD


def test_the_oldest_debt_is_paid_first(owner: Organization, month: Month) -> None:
    for back in (2, 1):
        documents.use(owner, month.plus(-back).start, 5 * USD)
    assert issue_due(timezone.now()) == 2
    books.credit(owner, 6 * USD)
    settle(timezone.now())
    assert list(Invoice.objects.order_by("month").values_list("status", flat=True)) == ["paid", "issued"]


@pytest.mark.parametrize("paid_usd", [0, 3, 5, 8])
def test_what_an_open_invoice_asks_for_is_never_asked_for_again(
    owner: Organization, month: Month, paid_usd: int
) -> None:
    """Whatever was paid meanwhile: both invoices and the payments together are what was used."""
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    issue_month(owner.id, last, now=timezone.now())
    if paid_usd:
        books.credit(owner, paid_usd * USD)
        settle(timezone.now())
    documents.use(owner, month.start, 9 * USD)
    assert invoiced(owner, month).total_cents == 900 - 100 * max(0, paid_usd - 5)


def test_what_was_paid_after_the_months_end_is_not_asked_for(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    books.credit(owner, 2 * USD)  # written now, so after the month
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    assert invoice.total_cents == 300


def test_charges_after_the_months_end_are_not_asked_for(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    charge(owner.id, 2 * USD, idempotency_key="fee", reason="A fee of this month")
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    assert invoice.total_cents == 500
    assert invoiced(owner, month).total_cents == 200


def test_a_credit_note_lowers_what_is_owed_and_what_was_asked_for(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    invoice = issue_month(owner.id, last, now=timezone.now())
    assert invoice is not None
    issue_credit_note(CreditNoteDraft(invoice.id, 200, "part", "Outage"))
    assert balance_nanos(owner.id) == -3 * USD
    documents.use(owner, month.start, 9 * USD)
    assert invoiced(owner, month).total_cents == 900
    books.credit(owner, 3 * USD)
    assert settle(timezone.now()) == 1


def test_a_debt_that_was_given_up_is_not_asked_for(owner: Organization, month: Month) -> None:
    last = month.previous()
    documents.use(owner, last.start, 5 * USD)
    issue_month(owner.id, last, now=timezone.now())
    write_off(owner.id, idempotency_key="off", reason="Gone", actor="test")
    settle(timezone.now())
    assert Invoice.objects.get().status == InvoiceStatus.PAID
    adjust(owner.id, -USD, idempotency_key="more", reason="Forgotten", actor="test")
    assert invoiced(owner, month).total_cents == 100


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_issue_each_month_once() -> None:
    documents.seller()
    month = documents.this_month()
    owners = [documents.on_credit(f"Owner {number}") for number in range(5)]
    for owner in owners:
        documents.use(owner, month.previous().start, 3 * USD)
        documents.use(owner, month.start, USD)
    results = books.at_once([partial(issue_due, documents.after(month))] * 4 + [partial(settle, timezone.now())] * 2)
    assert [result for result in results if isinstance(result, Exception)] == []
    assert sum(results[:4]) == 10
    assert sorted(Invoice.objects.values_list("total_cents", flat=True)) == [100] * 5 + [300] * 5
    assert sorted(Invoice.objects.values_list("sequence", flat=True)) == list(range(1, 11))
