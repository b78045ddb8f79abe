"""Makers of organizations with money, of posted usage, and of work that really runs at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import count
from threading import Barrier
from typing import Any

from django.db import connection, connections

from apps.accounts.models import Organization
from apps.accounts.organizations import create_organization
from apps.billing.grants import Credit, grant_credit
from apps.billing.models import Grant, GrantSource, LedgerLine
from apps.billing.proofs import verify
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.usage.contracts import RequestClosed, TokenCounts
from tests import factories

_serial = count(1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def organization(name: str = "Acme") -> Organization:
    """A new organization without money."""
    return create_organization(name)


def credit(
    owner: Organization,
    amount_nanos: int,
    *,
    source: GrantSource = GrantSource.MANUAL,
    expires_at: datetime | None = None,
    key: str | None = None,
) -> Grant:
    """Credit for an organization."""
    wanted = Credit(amount_nanos, source, expires_at)
    key = key or f"test-grant-{next(_serial)}"
    return grant_credit(owner.id, wanted, idempotency_key=key, reason="Test credit", actor="test")


def key(word: str = "key") -> str:
    """An idempotency key that nobody has used."""
    return f"test-{word}-{next(_serial)}"


def rest_of(*grants: Grant) -> list[int]:
    """What is left of the grants now."""
    rests = dict(Grant.objects.values_list("id", "remaining_nanos"))
    return [rests[grant.id] for grant in grants]


def account_total(kind: str, owner: Organization | None = None) -> int:
    """The sum of all lines on an account, perhaps only of one organization's transactions."""
    lines = LedgerLine.objects.filter(account__kind=kind)
    if owner is not None:
        lines = lines.filter(transaction__organization=owner)
    return sum(lines.values_list("amount_nanos", flat=True))


def failed_proofs() -> list[tuple[str, str]]:
    """The rules that do not hold, with what breaks them. Links of the chain are written at COMMIT: now, in a test's."""
    if connection.in_atomic_block:
        settle_constraints()
    return [(proof.name, proof.detail) for proof in verify() if not proof.holds]


def used(owner: Organization, price: Price, *, tokens: int = 10, **changes: Any) -> RequestClosed:
    """A request of the organization that used `tokens` input tokens."""
    counts = TokenCounts(input=tokens)
    opened = factories.opened(organization_id=owner.id, price=price, **changes)
    return factories.closed(opened, tokens=counts, cost_nanos=cost_nanos(counts, price))


def settle_constraints() -> None:
    """Run the checks that the database keeps for COMMIT, inside a test's transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")


def at_once(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run all jobs at the same moment, each in a thread with a connection of its own; results or exceptions."""
    start = Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        try:
            start.wait(timeout=30)
            return job()
        except Exception as error:  # noqa: BLE001 - the test looks at what went wrong, whatever it is
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))
