"""The passes over organizations whose money has moved: budgets and balances each minute, the slower looks each five.

One organization cannot stop the others: a look that fails for many at once is taken again for each alone."""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Final

from apps.billing.alerts.anomalies import evaluate_anomalies
from apps.billing.alerts.apart import each
from apps.billing.alerts.balances import evaluate_balances
from apps.billing.alerts.budgets import evaluate_budgets
from apps.billing.alerts.expiries import evaluate_expiries
from apps.billing.models import AlertPass, LedgerTransaction

OVERLAP: Final = timedelta(minutes=2)
"""A transaction's id is older than its COMMIT: each pass looks again at so much of the one before."""
FIRST_LOOK: Final = timedelta(hours=1)
CHUNK: Final = 200
LOOK_AGAIN: Final = timedelta(hours=1)
"""What failed is looked at again for so long, and after that when the organization's money moves the next time."""

Look = Callable[[Collection[str], datetime], None]


def evaluate(now: datetime) -> int:
    """Budgets and balances of all organizations whose wallets have moved since the last pass; returns how many.

    Cheap when nothing moves. Running it twice at once tells nothing twice: each alert has a key."""
    return _pass("balances", now, [evaluate_balances, evaluate_budgets])


def look_ahead(now: datetime) -> int:
    """Unusual spending of those organizations, then what the clock alone brings: ends of credit."""
    seen = _pass("anomalies", now, [evaluate_anomalies])
    evaluate_expiries(now)
    return seen


def moved_since(moment: datetime) -> list[str]:
    """The organizations with a ledger transaction since `moment`, whatever it did."""
    first_id = f"txn_{int(moment.timestamp() * 1000):012x}{'0' * 20}"
    rows = LedgerTransaction.objects.filter(id__gte=first_id, organization_id__isnull=False).order_by("organization_id")
    return list(rows.values_list("organization_id", flat=True).distinct())


def _pass(name: str, now: datetime, looks: list[Look]) -> int:
    """Whoever ends first moves the mark on; where something failed it stays behind, and the next pass sees the same
    again, but no more than LOOK_AGAIN: an organization that always fails must not make passes longer and longer."""
    place, _ = AlertPass.objects.get_or_create(name=name, defaults={"seen_until": now - FIRST_LOOK})
    moved = moved_since(place.seen_until - OVERLAP)
    failed = [one for chunk in _chunks(moved) for look in looks for one in _look(look, chunk, now)]
    until = max(place.seen_until, now - LOOK_AGAIN) if failed else now
    AlertPass.objects.filter(name=name, seen_until__lt=until).update(seen_until=until)
    return len(moved)


def _look(look: Look, chunk: list[str], now: datetime) -> list[str]:
    """The organizations for which the look failed."""
    if not each([chunk], lambda all_of_them: look(all_of_them, now), work="a look for alerts at many at once"):
        return []
    return each(chunk, lambda one: look([one], now), work="a look for alerts")


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]
