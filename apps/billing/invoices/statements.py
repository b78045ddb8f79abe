"""Monthly statements: opening balance, every movement, closing balance, computed from the books when asked for."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

from apps.accounts.models import Project
from apps.billing.invoices.months import Month
from apps.billing.invoices.positions import is_closed
from apps.billing.models import TransactionKind
from apps.core.errors import NotFound
from apps.core.money import format_usd

_STATEMENT = """
WITH moved AS (
    SELECT entry.id, entry.kind, entry.reason, entry.created_at, sum(line.amount_nanos)::bigint AS amount_nanos,
        (SELECT source FROM billing_grant credit WHERE credit.transaction_id = entry.id) AS source
    FROM billing_ledgertransaction entry
    JOIN billing_ledgerline line ON line.transaction_id = entry.id
    JOIN billing_ledgeraccount account ON account.id = line.account_id AND account.organization_id = %(owner)s
    WHERE entry.organization_id = %(owner)s AND entry.kind <> 'usage' AND entry.created_at >= %(start)s
    GROUP BY entry.id
), used AS (
    SELECT hour, project_id, model, requests, cost_nanos
    FROM usage_usagerollup WHERE organization_id = %(owner)s AND NOT sandbox AND hour >= %(start)s
), usage AS (
    SELECT project_id, model, sum(requests)::bigint AS requests, sum(cost_nanos)::bigint AS cost_nanos
    FROM used WHERE hour < %(end)s GROUP BY project_id, model
)
SELECT coalesce((SELECT balance_nanos FROM billing_ledgeraccount WHERE organization_id = %(owner)s), 0),
    coalesce((SELECT sum(amount_nanos) FROM moved), 0),
    coalesce((SELECT sum(amount_nanos) FROM moved WHERE created_at >= %(end)s), 0),
    coalesce((SELECT sum(cost_nanos) FROM used), 0),
    coalesce((SELECT sum(cost_nanos) FROM used WHERE hour >= %(end)s), 0),
    (SELECT json_agg(row_to_json(moved) ORDER BY created_at, id) FROM moved WHERE created_at < %(end)s)::text,
    (SELECT json_agg(row_to_json(usage) ORDER BY cost_nanos DESC, model) FROM usage)::text
"""

BOUGHT = "Credit bought"
GIVEN = "Credit given"
OTHER = "Other movements"
SECTIONS: dict[str, str] = {
    TransactionKind.CHARGE: "Charges",
    TransactionKind.REFUND: "Refunds of charges",
    TransactionKind.ADJUSTMENT: "Adjustments",
    TransactionKind.PAYMENT_REFUND: "Payments given back",
    TransactionKind.DISPUTE: "Disputed payments",
    TransactionKind.EXPIRY: "Expired credit",
    TransactionKind.WRITE_OFF: "Debts given up",
}
"""What each kind of movement is called, in the order of the statement, after credit and usage."""
CSV_COLUMNS = ("section", "time", "description", "project", "model", "requests", "amount_usd")


@dataclass(frozen=True)
class Movement:
    """A transaction other than usage: what it did to the balance, in nano-USD."""

    transaction_id: str
    reason: str
    created_at: datetime
    amount_nanos: int


@dataclass(frozen=True)
class Section:
    """Movements of one sort, oldest first."""

    name: str
    movements: tuple[Movement, ...]

    @property
    def total_nanos(self) -> int:
        return sum(movement.amount_nanos for movement in self.movements)


@dataclass(frozen=True)
class UsageLine:
    """What one project used of one model. `cost_nanos` is 0 or more; it lowers the balance."""

    project: str
    model: str
    requests: int
    cost_nanos: int


@dataclass(frozen=True)
class Statement:
    """A month of an organization. Opening balance + sections - usage = closing balance, to the nano-USD."""

    organization_id: str
    month: Month
    opening_nanos: int
    closing_nanos: int
    sections: tuple[Section, ...]
    usage: tuple[UsageLine, ...]
    is_preliminary: bool

    @property
    def usage_nanos(self) -> int:
        return sum(line.cost_nanos for line in self.usage)

    @property
    def adds_up(self) -> bool:
        """Whether the books agree with themselves: always, unless somebody went around them."""
        moved = sum(section.total_nanos for section in self.sections)
        return self.opening_nanos + moved - self.usage_nanos == self.closing_nanos


def statement(organization_id: str, month: Month, *, now: datetime) -> Statement:
    """The statement of a month that has begun. Raises NotFound for one that has not.

    It is preliminary while requests of the month can still run or wait for posting."""
    if month.start > now:
        raise NotFound(f"{month.name} has not begun")
    closed = is_closed(month, now)  # looked at before: what is closed stays so, and nothing comes in between
    with connection.cursor() as cursor:
        cursor.execute(_STATEMENT, {"owner": organization_id, "start": month.start, "end": month.end})
        balance, moved, moved_later, used, used_later, movements, usage = cursor.fetchone()
    return Statement(
        organization_id=organization_id,
        month=month,
        opening_nanos=int(balance - moved + used),
        closing_nanos=int(balance - moved_later + used_later),
        sections=_sections(json.loads(movements or "[]")),
        usage=_usage(organization_id, json.loads(usage or "[]")),
        is_preliminary=not closed,
    )


def rows(shown: Statement) -> Iterator[dict[str, object]]:
    """The statement as rows of CSV_COLUMNS; the amounts between the two balances sum to their difference."""
    yield _row("Opening balance", shown.month.start, amount_nanos=shown.opening_nanos)
    for section in shown.sections:
        for movement in section.movements:
            yield _row(section.name, movement.created_at, movement.amount_nanos, description=movement.reason)
    for line in shown.usage:
        about = {"project": line.project, "model": line.model, "requests": line.requests}
        yield _row("Usage", None, -line.cost_nanos, **about)
    yield _row("Closing balance", shown.month.end, shown.closing_nanos)


def _row(section: str, moment: datetime | None, amount_nanos: int, **about: object) -> dict[str, object]:
    time = f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else ""
    empty = dict.fromkeys(CSV_COLUMNS, "")
    return {**empty, "section": section, "time": time, **about, "amount_usd": format_usd(amount_nanos)}


def _sections(movements: list[dict[str, Any]]) -> tuple[Section, ...]:
    found: dict[str, list[Movement]] = defaultdict(list)
    for row in movements:
        moment = datetime.fromisoformat(row["created_at"])
        found[_section(row)].append(Movement(row["id"], row["reason"], moment, row["amount_nanos"]))
    return tuple(
        Section(name, tuple(found[name])) for name in (BOUGHT, GIVEN, *SECTIONS.values(), OTHER) if name in found
    )


def _section(row: dict[str, Any]) -> str:
    if row["kind"] == TransactionKind.GRANT:
        return BOUGHT if row["source"] == "purchased" else GIVEN
    return SECTIONS.get(row["kind"], OTHER)


def _usage(organization_id: str, found: list[dict[str, Any]]) -> tuple[UsageLine, ...]:
    names = dict(Project.objects.for_organization(organization_id).values_list("id", "name"))
    return tuple(
        UsageLine(names.get(row["project_id"], row["project_id"]), row["model"], row["requests"], row["cost_nanos"])
        for row in found
    )
