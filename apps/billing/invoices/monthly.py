"""Monthly invoices of organizations on credit: what they owe for closed months, and when that is paid.

An invoice asks for what the wallet owes at the end of the month and no earlier invoice asks for; so usage that was paid
from credit is not asked for again, and usage that arrives late is asked for next time."""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q, Sum
from django.utils import timezone

from apps.billing.invoices import parties
from apps.billing.invoices.amounts import BALANCE, Item, cents_from_nanos
from apps.billing.invoices.issuing import Draft, issue
from apps.billing.invoices.months import Month
from apps.billing.invoices.positions import is_closed, owed_from_before
from apps.billing.ledger import SYSTEM, lock_wallets
from apps.billing.models import BillingAccount, CreditNote, Invoice, InvoiceKind, InvoiceStatus
from apps.billing.one_by_one import one_by_one
from apps.core.errors import Conflict
from apps.core.models import OrganizationScopedQuerySet
from apps.core.money import NANOS_PER_CENT
from apps.usage.models import UsageRollup

MONTHS_BACK = 12
"""How far an organization that never got an invoice is looked at: long enough for any pause of the work."""
log = logging.getLogger(__name__)


def issue_due(now: datetime) -> int:
    """Issue all monthly invoices that are due and missing, oldest month first; returns how many.

    What goes wrong for one organization does not stop the others; its later months wait for the earlier one."""
    issued: list[Invoice] = []

    def issue_months(organization_id: str) -> None:
        for month in _months(organization_id, now):
            issued.extend(filter(None, [issue_month(organization_id, month, now=now)]))

    one_by_one("monthly invoice", _on_credit(), issue_months)
    return len(issued)


def issue_month(organization_id: str, month: Month, *, now: datetime, actor: str = SYSTEM) -> Invoice | None:
    """The new invoice of a closed month; None when there is one already, or less than half a cent to ask for.

    Raises Conflict while the month is not closed, and ConfigurationError when no seller is known."""
    if now < month.end:
        raise Conflict(f"{month.name} is not over: it ends at {month.end:%Y-%m-%d %H:%M} UTC")
    if not is_closed(month, now):
        raise Conflict(f"{month.name} is not closed: its usage is not all posted yet")
    return _issue_closed_month(organization_id, month, actor)


@transaction.atomic
def _issue_closed_month(organization_id: str, month: Month, actor: str) -> Invoice | None:
    lock_wallets([organization_id])  # nobody else issues or settles for this organization until COMMIT
    monthly = Invoice.objects.for_organization(organization_id).filter(kind=InvoiceKind.USAGE)
    if monthly.filter(month__gte=month.first_day).exists():
        return None
    due_nanos = _due(organization_id, month)
    if cents_from_nanos(due_nanos) < 1:
        return None
    items = list(_usage(organization_id, month))
    rest = due_nanos - sum(item.amount_nanos for item in items)
    if rest:
        words = "Paid from credit" if rest < 0 else "Carried over from earlier months"
        items.append(Item(words, rest, BALANCE))
    days = timedelta(days=parties.seller().payment_days)
    draft = Draft(
        organization_id,
        InvoiceKind.USAGE,
        source_key=f"usage:{organization_id}:{month}",
        items=items,
        month=month.first_day,
        due_on=(timezone.now() + days).date(),
        actor=actor,
    )
    return issue(draft)


def settle(now: datetime) -> int:
    """Note as paid each monthly invoice of which nothing is owed any more; returns of how many organizations."""
    waiting = Invoice.objects.filter(kind=InvoiceKind.USAGE, status=InvoiceStatus.ISSUED)
    owners = set(waiting.values_list("organization_id", flat=True))
    return one_by_one("settling monthly invoices", sorted(owners), lambda owner: _settle(owner, now))


@transaction.atomic
def _settle(organization_id: str, now: datetime) -> int:
    lock_wallets([organization_id])
    settled = 0
    for invoice in _open_invoices(organization_id).order_by("month"):
        rest = owed_from_before(organization_id, Month.of(invoice.month).end)
        if rest > NANOS_PER_CENT // 2:  # what rounding left over is carried to the next invoice
            break
        invoice.status, invoice.paid_at = InvoiceStatus.PAID, now
        invoice.save(update_fields=["status", "paid_at"])
        settled += 1
    return settled


def asked_nanos(organization_id: str, *, seen_at: datetime | None = None, issued_before: datetime | None = None) -> int:
    """What the monthly invoices that were open at `seen_at`, or are open now, ask for in all.

    `issued_before` leaves out those that were issued later, though for a month before."""
    invoices = _open_invoices(organization_id, seen_at)
    if issued_before is not None:
        invoices = invoices.filter(issued_at__lt=issued_before)
    asked = invoices.aggregate(cents=Sum("total_cents"))["cents"] or 0
    notes = CreditNote.objects.filter(invoice__in=invoices)
    if seen_at is not None:
        notes = notes.filter(issued_at__lt=seen_at)
    return int(asked - (notes.aggregate(cents=Sum("amount_cents"))["cents"] or 0)) * NANOS_PER_CENT


def latest_month(organization_id: str) -> Month | None:
    """The last month that was invoiced."""
    monthly = Invoice.objects.for_organization(organization_id).filter(kind=InvoiceKind.USAGE)
    latest = monthly.order_by("-month").values_list("month", flat=True).first()
    return Month.of(latest) if latest else None


def _due(organization_id: str, month: Month) -> int:
    """What is to be asked for: owed at the end of the month, not asked for, and not paid since then."""
    before = latest_month(organization_id)
    amounts = []
    for seen_at in (month.end, None):
        owed = owed_from_before(organization_id, month.end, seen_at=seen_at)
        asked = 0
        if before is not None:
            old = owed_from_before(organization_id, before.end, seen_at=seen_at)
            asked = min(asked_nanos(organization_id, seen_at=seen_at), old)
        amounts.append(owed - asked)
    return min(amounts)


def _usage(organization_id: str, month: Month) -> Iterator[Item]:
    rows = (
        UsageRollup.objects.for_organization(organization_id)
        .filter(hour__gte=month.start, hour__lt=month.end, sandbox=False)
        .values(name=F("model"))
        .annotate(cost=Sum("cost_nanos"), number=Sum("requests"))
        .order_by("-cost", "name")
    )
    for row in rows:
        if row["cost"]:
            yield Item(f"{row['name']}: {row['number']:,} requests in {month.name}", int(row["cost"]))


def _open_invoices(organization_id: str, seen_at: datetime | None = None) -> OrganizationScopedQuerySet:
    """Monthly invoices that wait for their money; at `seen_at`: of months that had ended, not paid or void by then."""
    monthly = Invoice.objects.for_organization(organization_id).filter(kind=InvoiceKind.USAGE)
    if seen_at is None:
        return monthly.filter(status=InvoiceStatus.ISSUED)
    unpaid = Q(paid_at=None) | Q(paid_at__gte=seen_at)
    return monthly.filter(unpaid, Q(voided_at=None) | Q(voided_at__gte=seen_at), month__lt=seen_at.date())


def _on_credit() -> Iterator[str]:
    """Organizations with a credit limit, and those that had one and were invoiced."""
    limited = BillingAccount.objects.filter(credit_limit_nanos__gt=0).values_list("organization_id", flat=True)
    invoiced = Invoice.objects.filter(kind=InvoiceKind.USAGE).values_list("organization_id", flat=True)
    yield from sorted({*limited, *invoiced.distinct()})


def _months(organization_id: str, now: datetime) -> Iterator[Month]:
    """The closed months since the last invoice, oldest first."""
    last = Month.of(now).previous()
    before = latest_month(organization_id)
    month = max(before.next(), last.plus(-MONTHS_BACK)) if before else last.plus(-MONTHS_BACK)
    while month <= last and is_closed(month, now):
        yield month
        month = month.next()
