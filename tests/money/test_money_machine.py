"""Any history of holds, ends, top-ups, refunds, expiries, crashes, duplicates and disorder, against a simple model.

Real PostgreSQL and Valkey, real commits, the gateway's own reservations and journals. A failure prints its seed:
CRUN_TEST_SEED=... repeats it."""

import asyncio
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from apps.billing import grants, ledger, rebuilding
from apps.billing.admission import ADMIT, GROW, RENEW, SETTLE, Admitted, key_prefix
from apps.billing.grants import Credit
from apps.billing.journals import site_of
from apps.billing.models import Grant, GrantSource, LedgerTransaction
from apps.billing.posting import post_batch
from apps.billing.rebuilding import rebuild
from apps.billing.recovery import close_orphan
from apps.billing.settlement import settle_recorded
from apps.catalog.contracts import Price
from apps.core.limits import Limits
from apps.core.redis import single_try_client
from apps.core.scripts import ScriptClient
from apps.gateway.admission.reservations import Reservations
from apps.gateway.server.bridge import DatabaseBridge
from apps.usage.contracts import RequestProgress, TokenCounts
from apps.usage.journal import Journal
from apps.usage.shipping import ship
from tests import factories
from tests.billing import books
from tests.gateway.storms import demand
from tests.money.money_model import HELD, ModelRequest, MoneyModel
from tests.money.soaking import figure, seed_of_this_run, sized

EXAMPLES = sized(200, 10_000)
STEPS = 14
PAST = datetime(2026, 1, 1, tzinfo=UTC)
BY = {"reason": "Because", "actor": "test"}
WORKERS = 2
ANOTHER = b"another server"
amounts = st.integers(1, 60)
picks = st.integers(0, 10**6)
serial = count(1)


class Killed(Exception):
    """Stands for the end of a process in the middle of its work."""


class Site:
    """What all histories share: a loop, one connection to Valkey a worker, a price of a nano-dollar a token."""

    def __init__(self, folder: Path, price: Price) -> None:
        self.folder, self.price = folder, price
        self.loop = asyncio.new_event_loop()
        self.bridge = DatabaseBridge()
        self.client = single_try_client()
        self.stores: list[ScriptClient] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.loop.run_until_complete(self._connect())

    async def _connect(self) -> None:
        self.stores = [ScriptClient([ADMIT, GROW, SETTLE, RENEW]) for _ in range(WORKERS)]
        self.tasks = [asyncio.create_task(store.run()) for store in self.stores]
        await asyncio.sleep(0.1)  # connecting has a limit, and later the loop stands still between the steps

    def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*self.tasks, return_exceptions=True))
        self.bridge.close()
        self.client.close()
        self.loop.close()


class Door:
    """One gateway process, as far as money goes. It can die."""

    def __init__(self, site: Site, number: int, journals: Path) -> None:
        self.journal = Journal(journals, max_bytes=1 << 30)
        self._loop = site.loop

        async def make() -> Reservations:
            return Reservations(
                site.stores[number],
                lambda owners: site.bridge.read(partial(rebuild, owners, journals)),
                site=site_of(journals),
            )

        self.reservations = self._loop.run_until_complete(make())

    def run(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    def settle(self, end: Any) -> None:
        async def told() -> None:
            self.reservations.settle(end)
            await self.reservations.drain()

        self.run(told())


class MoneyMachine(RuleBasedStateMachine):
    """One organization, two gateway processes."""

    site: Site

    @initialize(credit=st.integers(0, 150), budget=st.none() | st.integers(20, 150))
    def begin(self, credit: int, budget: int | None) -> None:
        self.owner = books.organization(f"Machine {next(serial)}").id
        self.prefix = key_prefix(self.owner)
        self.journals = self.site.folder / self.owner
        self.limits = Limits(budget_nanos=budget)
        self.model = MoneyModel(budget)
        self.doors = [Door(self.site, number, self.journals) for number in range(WORKERS)]
        self.generation = b""
        self.top_ups: list[tuple[str, int]] = []
        self.refunded: dict[str, int] = {}
        if credit:
            self.top_up(credit)

    # --- requests ---

    def reserve(self, worker: int, most: int, least: int) -> ModelRequest | None:
        """Ask for money; the answer is exactly what the model says."""
        wanted = demand(self.owner, most, least=min(most, least), key_limits=self.limits)
        answer = self.doors[worker].run(self.doors[worker].reservations.reserve(wanted))
        self.look()
        expected = self.model.admits(most, min(most, least))
        if not isinstance(answer, Admitted):
            assert expected is None, f"refused {most} although {self.model.room} were left"
            assert answer.what in ("balance", "budget")
            return None
        assert answer.hold_nanos == expected
        request = ModelRequest(wanted.request_id, answer.hold_nanos, worker, demand=wanted)
        self.model.requests[request.id] = request
        return request

    @rule(worker=st.integers(0, WORKERS - 1), most=amounts, least=amounts)
    def hold(self, worker: int, most: int, least: int) -> None:
        request = self.reserve(worker, most, least)
        if request is not None:
            request.opened = factories.opened(
                request_id=request.id, organization_id=self.owner, project_id="proj_1", key_id="key_1",
                hold_nanos=request.hold, price=self.site.price, input_estimate=request.hold % 7 + 1,
            )  # fmt: skip
            self.doors[worker].journal.open_request(request.opened)

    def pick(self, pick: int, **having: Any) -> ModelRequest | None:
        """One of the requests in such a state, if there is any."""
        found = [
            request
            for request in self.model.requests.values()
            if all(bool(getattr(request, name)) is value for name, value in having.items())
        ]
        return found[pick % len(found)] if found else None

    @rule(pick=picks, output=st.integers(1, 30))
    def deliver(self, pick: int, output: int) -> None:
        """A checkpoint of a stream, with what is held by now."""
        request = self.pick(pick, opened=True, closed=False, is_orphan=False)
        if request is not None:
            request.delivered = (request.delivered or 0) + output
            self.doors[request.worker].journal.checkpoint(RequestProgress(request.id, request.delivered, request.hold))

    @rule(pick=picks, more=amounts)
    def grow(self, pick: int, more: int) -> None:
        """A running request holds more: as much as it wants, or what there is; its journal knows before it is used."""
        request = self.pick(pick, opened=True, closed=False, is_orphan=False)
        if request is None:
            return
        door, wanted = self.doors[request.worker], request.hold + more

        def note(hold_nanos: int) -> bool:
            return door.journal.checkpoint(RequestProgress(request.id, request.delivered or 0, hold_nanos))

        growing = door.reservations.grow(request.demand, wanted_nanos=wanted, tokens=0, note=note)
        grown = door.run(growing)
        self.look()
        assert grown.hold_nanos == request.hold + max(0, min(more, self.model.room))
        request.hold = grown.hold_nanos

    @rule(pick=picks, share=st.integers(0, 3), is_told=st.booleans())
    def end(self, pick: int, share: int, is_told: bool) -> None:
        """A request ends with none, a part or all of its hold; Redis is told now or later."""
        request = self.pick(pick, opened=True, closed=False, is_orphan=False)
        if request is None or request.opened is None:
            return
        request.cost = request.hold * share // 3
        request.closed = factories.closed(
            request.opened, tokens=TokenCounts(input=request.cost), cost_nanos=request.cost
        )
        self.doors[request.worker].journal.close_request(request.closed)
        request.is_late = True
        if is_told:
            self.tell(request)

    def tell(self, request: ModelRequest) -> None:
        self.doors[request.worker].settle(request.closed)
        self.model.settle(request)

    @rule(pick=picks)
    def tell_late(self, pick: int) -> None:
        """Settlements arrive in any order, after anything that happened meanwhile."""
        if request := self.pick(pick, is_late=True):
            self.tell(request)

    @rule(pick=picks, worker=st.integers(0, WORKERS - 1))
    def tell_again(self, pick: int, worker: int) -> None:
        """A settlement that comes twice changes nothing. Of a process that died before it told, this is the first."""
        if request := self.pick(pick, closed=True, is_late=False):
            self.doors[worker].settle(request.closed)
            if request.in_redis == HELD:
                self.model.settle(request)

    @rule(pick=picks, amount=amounts)
    def give_up(self, pick: int, amount: int) -> None:
        """Reserved and released: its caller left before the journal knew of it."""
        worker = pick % WORKERS
        wanted = demand(self.owner, amount, key_limits=self.limits)
        reservations = self.doors[worker].reservations
        answer = self.doors[worker].run(reservations.reserve(wanted))
        self.look()
        assert isinstance(answer, Admitted) is (self.model.admits(amount, amount) is not None)
        if isinstance(answer, Admitted):

            async def release() -> None:
                reservations.release(wanted)
                reservations.release(wanted)
                await reservations.drain()

            self.doors[worker].run(release())

    @rule(worker=st.integers(0, WORKERS - 1))
    def renew(self, worker: int) -> None:
        async def renew() -> None:
            self.doors[worker].reservations.renew()
            await asyncio.sleep(0.001)

        self.doors[worker].run(renew())

    # --- what goes wrong ---

    @rule(worker=st.integers(0, WORKERS - 1), amount=st.none() | amounts)
    def crash(self, worker: int, amount: int | None) -> None:
        """A process is gone with all that it knew; with `amount` right after it held that much."""
        if amount:
            self.reserve(worker, amount, amount)
        self.doors[worker].journal.close()
        self.model.die(worker)
        self.doors[worker] = Door(self.site, worker, self.journals)

    @rule(is_other_server=st.booleans())
    def empty_the_store(self, is_other_server: bool) -> None:
        """FLUSHALL, or a server that was restarted and remembers what may be too old."""
        if is_other_server:
            self.site.client.set(f"{self.prefix}epoch", ANOTHER)
        else:
            self.site.client.flushdb()
        self.model.forget()
        self.generation = b""

    @rule(pick=picks)
    def lose_a_hold(self, pick: int) -> None:
        """Nobody renewed it in time."""
        request = self.pick(pick, opened=True)
        if request is not None and self.site.client.zscore(f"{self.prefix}expiry", request.id) is not None:
            self.site.client.zadd(f"{self.prefix}expiry", {request.id: 1})

    # --- money in and out ---

    @rule(amount=amounts, ends=st.booleans())
    def top_up(self, amount: int, ends: bool = False) -> None:
        key = f"machine-{next(serial)}"
        self._credit(key, amount, ends)
        self.top_ups.append((key, amount))
        self.model.given += amount

    def _credit(self, key: str, amount: int, ends: bool) -> None:
        credit = Credit(amount, GrantSource.PURCHASED, PAST + timedelta(days=len(self.top_ups)) if ends else None)
        grants.grant_credit(self.owner, credit, idempotency_key=key, reason="Test credit")

    @rule(pick=picks)
    def top_up_again(self, pick: int) -> None:
        """The same payment reported twice is credited once."""
        if self.top_ups:
            key, amount = self.top_ups[pick % len(self.top_ups)]
            end = Grant.objects.get(transaction__idempotency_key=key).expires_at
            grants.grant_credit(
                self.owner, Credit(amount, GrantSource.PURCHASED, end), idempotency_key=key, reason="Test credit"
            )

    @rule()
    def expire(self) -> None:
        """What is left of grants that have ended goes, also while requests hold it."""
        due = Grant.objects.filter(organization_id=self.owner, expires_at__isnull=False, remaining_nanos__gt=0)
        rest = sum(due.values_list("remaining_nanos", flat=True))
        grants.expire_due(datetime.now(UTC))
        self.model.given -= rest
        self.model.slack += rest

    @rule(pick=picks, amount=amounts)
    def refund(self, pick: int, amount: int) -> None:
        """A part of a charge is given back, twice with the same key: once."""
        charges = list(LedgerTransaction.objects.filter(organization_id=self.owner, kind="usage").order_by("id"))
        if not charges:
            return
        charge = charges[pick % len(charges)]
        cost = -sum(charge.lines.filter(account__kind="wallet").values_list("amount_nanos", flat=True))
        left = cost - self.refunded.get(charge.id, 0)
        if left:
            amount, key = min(amount, left), f"machine-{next(serial)}"
            for _ in range(2):
                grants.refund(charge.id, amount, idempotency_key=key, **BY)
            self.refunded[charge.id] = self.refunded.get(charge.id, 0) + amount
            self.model.given += amount

    # --- the way into the ledger ---

    @rule(is_read_again=st.booleans())
    def ship(self, is_read_again: bool = False) -> None:
        """Journals to records; `is_read_again` as by a shipper that does not know how far the last one came."""
        if is_read_again:
            for position in self.journals.glob("*/shipped"):
                position.unlink()
        ship(self.journals, close_orphan=close_orphan, on_recorded=settle_recorded)
        self.model.ship()

    @rule()
    def ship_and_die(self) -> None:
        """The shipper is killed right after it committed records: it noted nothing and told nobody."""

        def die(closed: object) -> None:
            raise Killed

        with suppress(Killed):
            ship(self.journals, close_orphan=close_orphan, on_recorded=die)
        self.model.record({request_id for request_id, _ in recorded(self.owner)})

    @rule()
    def post(self) -> None:
        while post_batch():
            pass
        self.model.posted = sum(request.cost for request in self.model.requests.values() if request.is_recorded)

    # --- what must hold after every step ---

    def look(self) -> None:
        """Whether Redis was rebuilt since the last look."""
        generation = self.site.client.hget(f"{self.prefix}money", "generation")
        if generation and generation != self.generation:
            self.generation = generation
            self.model.count_again()

    @invariant()
    def redis_says_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        self.look()
        money = self.site.client.hgetall(f"{self.prefix}money")
        if b"balance" not in money or self.site.client.get(f"{self.prefix}epoch") == ANOTHER:
            return  # nobody would believe it
        holds = {name.decode() for name in self.site.client.hkeys(f"{self.prefix}holds")}
        assert holds == {request.id for request in self.model.requests.values() if request.in_redis == HELD}
        assert int(money[b"held"]) == self.model.held, "held"
        assert int(money[b"balance"]) == self.model.balance_in_redis, "balance"
        spent = int(self.site.client.hget(f"{self.prefix}spend", "k:key_1|lifetime|0") or 0)
        assert spent == self.model.charged
        assert self.model.balance_in_redis - self.model.held >= -self.model.slack, "more is held than there is"

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        if hasattr(self, "model"):
            assert ledger.balance_nanos(self.owner) == self.model.balance_in_ledger

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        try:
            self.come_to_rest()
        finally:
            for door in self.doors:
                with suppress(OSError):
                    door.journal.close()
            shutil.rmtree(self.journals, ignore_errors=True)

    def come_to_rest(self) -> None:
        """Every process ends, everything is shipped and posted: each request has one record, and nothing is held."""
        for worker in range(WORKERS):
            self.crash(worker, None)
        self.ship()
        self.post()
        self.redis_says_what_the_model_says()
        self.the_ledger_says_what_the_model_says()
        costs = {request.id: request.cost for request in self.model.requests.values() if request.opened is not None}
        assert recorded(self.owner) == sorted(costs.items())
        assert broken_books(self.owner) == []
        for request in self.model.requests.values():
            if (
                request.opened is None and request.in_redis == HELD
            ):  # a hold that no journal knows lasts until it expires
                self.site.client.zadd(f"{self.prefix}expiry", {request.id: 1})
                request.in_redis = "nowhere"
        self.give_up(0, 1)
        self.redis_says_what_the_model_says()
        assert self.model.held == 0


def recorded(owner: str) -> list[tuple[str, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT request_id, cost_nanos FROM usage_usagerecord WHERE organization_id = %s ORDER BY 1", [owner]
        )
        return [(name, int(cost)) for name, cost in cursor.fetchall()]


_BOOKS = """
SELECT 'transaction ' || entry.id FROM billing_ledgertransaction entry
    JOIN billing_ledgerline line ON line.transaction_id = entry.id
    WHERE entry.organization_id = %(owner)s GROUP BY entry.id HAVING sum(line.amount_nanos) <> 0
UNION ALL
SELECT 'wallet' FROM billing_ledgeraccount account LEFT JOIN billing_ledgerline line ON line.account_id = account.id
    WHERE account.organization_id = %(owner)s
    GROUP BY account.id HAVING account.balance_nanos <> coalesce(sum(line.amount_nanos), 0)
UNION ALL
SELECT 'grant ' || credit.id FROM billing_grant credit LEFT JOIN billing_ledgerline line ON line.grant_id = credit.id
    WHERE credit.organization_id = %(owner)s GROUP BY credit.id
    HAVING credit.remaining_nanos <> coalesce(sum(line.amount_nanos), 0)
        OR credit.remaining_nanos NOT BETWEEN 0 AND credit.amount_nanos
UNION ALL
SELECT 'rollups' WHERE
    (SELECT coalesce(sum(cost_nanos), 0) FROM usage_usagerollup WHERE organization_id = %(owner)s)
    <> (SELECT coalesce(sum(cost_nanos), 0) FROM usage_usagerecord WHERE organization_id = %(owner)s)
UNION ALL
SELECT 'requests' WHERE
    (SELECT coalesce(sum(requests), 0) FROM usage_usagerollup WHERE organization_id = %(owner)s)
    <> (SELECT count(*) FROM usage_usagerecord WHERE organization_id = %(owner)s)
"""


def broken_books(owner: str) -> list[str]:
    """The ledger's rules for one organization, in words of the test's own."""
    with connection.cursor() as cursor:
        cursor.execute(_BOOKS, {"owner": owner})
        return [what for (what,) in cursor.fetchall()]


@pytest.fixture
def site(transactional_db: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(logging.getLogger("apps.usage.shipping"), "disabled", True)
    monkeypatch.setattr(logging.getLogger("apps.billing.posting"), "disabled", True)
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    monkeypatch.setattr(rebuilding, "UNOPENED_S", 0.0)  # nobody is between his hold and his journal here
    made = Site(tmp_path, factories.stored_price(input="0.001", output="0.001", cache_read=None))
    made.client.flushdb()
    yield made
    made.client.flushdb()
    made.close()


@pytest.mark.timeout(0 if EXAMPLES > 200 else 600)
def test_any_history_of_holds_ends_and_accidents_is_what_the_model_says(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1, D2, D3, D4, D5, D7, D23, D29: after every step; and at the end nothing is held and nothing is missing."""
    number = seed_of_this_run()
    monkeypatch.setattr(MoneyMachine, "site", site, raising=False)
    began = time.monotonic()
    run_state_machine_as_test(
        seed(number)(MoneyMachine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert books.failed_proofs() == []
    figure("histories", sequences=EXAMPLES, took_s=round(time.monotonic() - began, 1), seed=number)
