"""Test traffic is recorded and summed, and moves no money: not posted, not rebuilt, not proven as a charge."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from apps.billing import rebuilding
from apps.billing.balance_cache import money_key
from apps.billing.ledger import balance_nanos
from apps.billing.models import LedgerTransaction
from apps.billing.posting import post_batch
from apps.billing.recovery import close_orphan
from apps.billing.settlement import settle_recorded
from apps.core.redis import single_try_client
from apps.usage.contracts import Outcome, RequestClosed
from apps.usage.journal import Journal
from apps.usage.models import UsageRecord, UsageRollup
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
USD = 1_000_000_000


@pytest.fixture
def store() -> Any:
    client = single_try_client()
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def one_of_each() -> tuple[str, RequestClosed, RequestClosed]:
    """An organization with a dollar, a live request and a sandbox request that cost the same."""
    owner = books.organization()
    books.credit(owner, USD)
    price = factories.stored_price()
    live, test = books.used(owner, price), books.used(owner, price)
    test = replace(test, opened=replace(test.opened, sandbox=True, hold_nanos=0))
    assert live.cost_nanos == test.cost_nanos == 1_500
    return owner.id, live, test


def rebuilt(store: Any, owner: str, journals: Path) -> tuple[int, int, int]:
    """Balance, holds and lifetime spend after a rebuild from nothing."""
    store.flushdb()
    rebuilding.rebuild([owner], journals)
    money = store.hgetall(money_key(owner))
    spent = store.hget(f"crun:{{{owner}}}:spend", "o|lifetime|0")
    return int(money[b"balance"]), int(money[b"held"]), int(spent or 0)


def test_it_is_posted_and_summed_but_never_charged(
    one_of_each: tuple[str, RequestClosed, RequestClosed], tmp_path: Path
) -> None:
    owner, live, test = one_of_each
    record([live, test])
    assert post_batch() == 2
    assert balance_nanos(owner) == USD - live.cost_nanos
    assert LedgerTransaction.objects.filter(kind="usage").count() == 1
    sums = dict(UsageRollup.objects.values_list("sandbox", "cost_nanos"))
    assert sums == {False: live.cost_nanos, True: test.cost_nanos}
    assert UsageRecord.objects.get(sandbox=True).cost_nanos == test.cost_nanos
    books.settle_constraints()
    assert books.failed_proofs() == []


@pytest.mark.parametrize("where", ["journal", "record", "posted"])
def test_a_rebuild_leaves_it_out_wherever_it_is(
    one_of_each: tuple[str, RequestClosed, RequestClosed], store: Any, tmp_path: Path, where: str
) -> None:
    owner, live, test = one_of_each
    if where == "journal":
        journal = Journal(tmp_path, max_bytes=1 << 20)
        for end in (live, test):
            journal.open_request(end.opened)
            journal.close_request(end)
    else:
        record([live, test])
    if where == "posted":
        post_batch()
    assert rebuilt(store, owner, tmp_path) == (USD - live.cost_nanos, 0, live.cost_nanos)


def test_a_running_one_holds_nothing_after_a_rebuild(
    one_of_each: tuple[str, RequestClosed, RequestClosed], store: Any, tmp_path: Path
) -> None:
    owner, _, test = one_of_each
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open_request(replace(test.opened, hold_nanos=None))
    assert rebuilt(store, owner, tmp_path) == (USD, 0, 0)


def test_one_whose_process_died_is_closed_with_its_cost_and_settled_for_nothing(
    one_of_each: tuple[str, RequestClosed, RequestClosed], store: Any, tmp_path: Path
) -> None:
    owner, _, test = one_of_each
    end = close_orphan(test.opened, 7)
    assert (end.outcome, end.overage_nanos, end.charged_nanos) == (Outcome.INTERRUPTED, 0, 0)
    assert end.cost_nanos > 0
    rebuilt(store, owner, tmp_path)
    record([end])
    settle_recorded([end])
    assert int(store.hget(money_key(owner), "balance")) == USD
