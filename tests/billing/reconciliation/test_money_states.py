"""Redis equals PostgreSQL: exact at rest, never a false alarm while requests run, and no difference overlooked."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.db import connections

from apps.accounts.models import Organization
from apps.billing import grants
from apps.billing.admission import ADMIT, SETTLE, Demand, key_prefix, settle_arguments
from apps.billing.models import BillingAccount
from apps.billing.posting import post_batch
from apps.billing.rebuilding import rebuild
from apps.billing.reconciliation import money_states
from apps.billing.reconciliation.money_states import prove_money_states
from apps.catalog.contracts import Price
from apps.core.redis import single_try_client
from apps.usage.contracts import RequestClosed
from apps.usage.journal import Journal
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
HOLD = 9_000


class Counter:
    """A gateway without HTTP: admits, writes its journal and settles, step by step."""

    def __init__(self, owner: Organization, price: Price, root: Path) -> None:
        self.owner, self.price, self.root = owner, price, root
        self.client = single_try_client()
        self.run_id = self.client.info("server")["run_id"]
        self.journal = Journal(root, max_bytes=1 << 20)

    def know(self) -> None:
        rebuild([self.owner.id], self.root)

    def admit(self) -> RequestClosed:
        """A request that holds money and stands open in the journal; returns how it will end."""
        ending = books.used(self.owner, self.price)
        opened = ending.opened
        demand = Demand(opened.request_id, self.owner.id, opened.key_id, opened.project_id, HOLD, HOLD, 10)
        answer = self._call(ADMIT.text, *demand.arguments(600_000))
        assert answer[0] == 1
        self.journal.open_request(factories.opened(**_fields(opened), hold_nanos=HOLD))
        return ending

    def close(self, ending: RequestClosed) -> None:
        self.journal.close_request(ending)

    def settle(self, ending: RequestClosed) -> None:
        self._call(SETTLE.text, *settle_arguments(ending))

    def change(self, field: str, by: int) -> None:
        self.client.hincrby(f"{key_prefix(self.owner.id)}money", field, by)

    def _call(self, text: str, *arguments: object) -> list[object]:
        return self.client.eval(text, 1, f"{key_prefix(self.owner.id)}money", self.run_id, *arguments)  # type: ignore[no-any-return]  # sync


def _fields(opened: object) -> dict[str, object]:
    names = ("request_id", "organization_id", "project_id", "key_id", "model", "price")
    return {name: getattr(opened, name) for name in names}


@pytest.fixture
def till(tmp_path: Path, settings: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    settings.JOURNAL_DIR = tmp_path  # type: ignore[attr-defined]  # pytest-django's
    monkeypatch.setattr(money_states, "PAUSE_S", 0.01)
    owner = books.organization()
    books.credit(owner, 1_000_000)
    till = Counter(owner, factories.stored_price(), tmp_path)
    till.client.flushdb()
    till.know()
    yield till
    till.journal.close()
    till.client.flushdb()
    till.client.close()


def test_nothing_known_is_nothing_wrong(till: Counter) -> None:
    till.client.flushdb()
    proof = prove_money_states()
    assert (proof.holds, proof.detail) == (True, "")


def test_a_request_counts_once_at_every_place_on_its_way(till: Counter) -> None:
    steps = []
    ending = till.admit()
    steps.append(prove_money_states())
    till.close(ending)
    steps.append(prove_money_states())  # closed in the journal, and not settled yet
    till.settle(ending)
    steps.append(prove_money_states())
    record([ending])
    steps.append(prove_money_states())  # recorded, and in the journal as well
    post_batch()
    steps.append(prove_money_states())
    assert [(proof.holds, proof.detail) for proof in steps] == [(True, "")] * 5


def test_a_request_that_is_recorded_before_it_is_settled_counts_once(till: Counter) -> None:
    ending = till.admit()
    till.close(ending)
    record([ending])
    post_batch()
    assert prove_money_states().holds


@pytest.mark.parametrize("by", [1, -1])
def test_d29_a_single_nano_dollar_is_found(till: Counter, by: int) -> None:
    till.change("balance", by)
    proof = prove_money_states()
    assert not proof.holds
    assert proof.detail == (f"{till.owner.id} has {1_000_000 + by} in Redis, 1000000 in PostgreSQL and the journals")


def test_a_difference_is_found_beside_running_requests(till: Counter) -> None:
    ending = till.admit()
    till.close(ending)
    till.change("balance", ending.cost_nanos + 1)  # more than what is not settled yet can explain
    assert not prove_money_states().holds
    till.settle(ending)
    time.sleep(0.01)
    assert not prove_money_states().holds


def test_money_that_is_held_for_nobody_is_found(till: Counter) -> None:
    till.admit()
    till.change("held", 5)
    assert prove_money_states().detail == f"{till.owner.id} holds {HOLD + 5} in Redis, its requests {HOLD}"


def test_a_credit_limit_that_redis_does_not_know_is_found(till: Counter) -> None:
    BillingAccount.objects.create(organization=till.owner, credit_limit_nanos=77)
    assert prove_money_states().detail == (f"{till.owner.id} has the credit limit 0 in Redis, 77 in PostgreSQL")


def test_a_settlement_whose_record_is_lost_is_found_once_it_cannot_be_elsewhere(
    till: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = till.admit()
    till.settle(ending)  # never closed in a journal of this machine
    proof = prove_money_states()
    assert (proof.holds, proof.detail) == (True, "1 of 1 too busy to be compared")
    monkeypatch.setattr(money_states, "SETTLED_LATELY_MS", -1_000)
    assert not prove_money_states().holds


def test_the_state_of_another_server_is_not_looked_at(till: Counter) -> None:
    till.change("balance", 1)
    till.client.set(f"{key_prefix(till.owner.id)}epoch", "another")
    assert prove_money_states().holds


def test_a_look_changes_nothing(till: Counter) -> None:
    till.admit()
    before = {name: till.client.dump(name) for name in till.client.keys("*")}
    prove_money_states()
    assert {name: till.client.dump(name) for name in till.client.keys("*")} == before


def test_a_storm_is_never_mistaken_for_a_difference(till: Counter) -> None:
    """Requests, shipping, posting and grants go on all the time; forty proofs see no difference."""
    stop, wrong = threading.Event(), []

    def traffic() -> None:
        client_errors = (redis.RedisError, AssertionError)
        try:
            waiting: list[RequestClosed] = []
            for number in range(10_000):
                if stop.is_set():
                    break
                try:
                    ending = till.admit()
                except client_errors:
                    till.know()  # a grant dropped the state: the next admission rebuilds it
                    continue
                till.close(ending)
                till.settle(ending)
                waiting.append(ending)
                if number % 7 == 0:
                    record(waiting)
                    waiting.clear()
                if number % 11 == 0:
                    post_batch()
                if number % 40 == 0:
                    grants.charge(till.owner.id, 3, idempotency_key=books.key(), reason="Used")
        except Exception as error:  # noqa: BLE001 - the test looks at what went wrong, whatever it is
            wrong.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        proofs = [prove_money_states() for _ in range(40)]
    finally:
        stop.set()
        thread.join(30)
    assert wrong == []
    assert [proof.detail for proof in proofs if not proof.holds] == []
    assert any(not proof.detail for proof in proofs), "every look was too busy: nothing was compared"
