"""Random histories of one organization against a model in plain Python, on real PostgreSQL with real commits.

CRUN_SOAK_EXAMPLES sets how many histories are tried."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from apps.accounts.models import Organization
from apps.billing import grants, ledger
from apps.billing.grants import PRIORITIES, Credit
from apps.billing.models import Grant, GrantSource
from apps.billing.posting import post_batch
from apps.catalog.contracts import Price
from apps.core.errors import Conflict
from apps.usage.recording import record
from tests import factories
from tests.billing import books
from tests.billing.ledger_model import LedgerModel, ModelCharge, ModelGrant

EXAMPLES = int(os.environ.get("CRUN_SOAK_EXAMPLES", "40"))
START = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = 10**6
BY = {"reason": "Because", "actor": "test"}

amounts = st.integers(1, 40)
days = st.integers(1, 6)
serial = count(1)


class LedgerMachine(RuleBasedStateMachine):
    """One organization. Every act is kept, so that it can be repeated later with the same key."""

    price: Price

    @initialize()
    def begin(self) -> None:
        self.owner: Organization = books.organization(f"Acme {next(serial)}")
        self.model = LedgerModel()
        self.acts: list[tuple[Callable[[], Any], str]] = []
        self.posted = 0

    def act(self, job: Callable[[], Any]) -> Any:
        result = job()
        self.acts.append((job, result.pk))
        return result

    def charging(self, amount: int) -> Callable[[], Any]:
        return partial(grants.charge, self.owner.id, amount, idempotency_key=f"m-{next(serial)}", reason="Used")

    @rule(amount=amounts, source=st.sampled_from(GrantSource), day=st.none() | days)
    def grant(self, amount: int, source: GrantSource, day: int | None) -> None:
        end = START + timedelta(days=day) if day else None
        credit = Credit(amount, source, end)
        key = f"m-{next(serial)}"
        made = self.act(partial(grants.grant_credit, self.owner.id, credit, idempotency_key=key, **BY))
        rank = (PRIORITIES[source], day or NEVER, len(self.model.grants))
        self.model.grant(ModelGrant(made.id, rank, amount, day))

    @rule(amount=amounts)
    def charge(self, amount: int) -> None:
        made = self.act(self.charging(amount))
        self.model.charge(made.id, amount)

    @precondition(lambda self: any(charge.taken for charge in self.model.charges))
    @rule(choice=st.randoms(use_true_random=False), share=st.integers(1, 40))
    def refund(self, choice: Any, share: int) -> None:
        charge = choice.choice([charge for charge in self.model.charges if charge.taken])
        amount = min(share, len(charge.taken))
        self.act(partial(grants.refund, charge.id, amount, idempotency_key=f"m-{next(serial)}", **BY))
        self.model.refund(charge, amount)

    @precondition(lambda self: self.model.charges)
    @rule(choice=st.randoms(use_true_random=False))
    def refund_too_much(self, choice: Any) -> None:
        charge = choice.choice(self.model.charges)
        with pytest.raises(Conflict):
            grants.refund(charge.id, len(charge.taken) + 1, idempotency_key=f"m-{next(serial)}", **BY)

    @rule(amount=amounts | amounts.map(lambda amount: -amount))
    def adjust(self, amount: int) -> None:
        self.act(partial(grants.adjust, self.owner.id, amount, idempotency_key=f"m-{next(serial)}", **BY))
        self.model.adjust(amount)

    @precondition(lambda self: self.model.debt)
    @rule()
    def write_off(self) -> None:
        self.act(partial(grants.write_off, self.owner.id, idempotency_key=f"m-{next(serial)}", **BY))
        self.model.write_off()

    @rule(day=days)
    def expire(self, day: int) -> None:
        grants.expire_due(START + timedelta(days=day))
        self.model.expire(day)

    @precondition(lambda self: self.acts)
    @rule(choice=st.randoms(use_true_random=False))
    def repeat_an_act(self, choice: Any) -> None:
        job, first = choice.choice(self.acts)
        assert job().pk == first

    @precondition(lambda self: self.acts)
    @rule(choice=st.randoms(use_true_random=False))
    def use_a_key_for_something_else(self, choice: Any) -> None:
        job, _ = choice.choice(self.acts)
        with pytest.raises(Conflict):
            grants.charge(self.owner.id, 41, idempotency_key=job.keywords["idempotency_key"], reason="Used")

    @rule(several=st.lists(amounts, min_size=2, max_size=4), twins=st.integers(1, 2))
    def charge_at_once(self, several: list[int], twins: int) -> None:
        """Whatever the order, the same nanos are taken in the end; who took which is read from the ledger."""
        jobs = [self.charging(amount) for amount in several]
        made = books.at_once(jobs * twins)
        assert [row.pk for row in made] == [row.pk for row in made[: len(jobs)]] * twins
        by_id = {grant.id: grant for grant in self.model.grants}
        for _ in range(sum(several)):
            self.model.take()
        self.model.revenue += sum(several)
        for row in made[: len(jobs)]:
            charge = ModelCharge(row.pk, [])
            self.model.charges.append(charge)
            lines = row.lines.filter(account__kind="wallet").order_by("id")
            for amount, grant_id in lines.values_list("amount_nanos", "grant_id"):
                charge.taken += [by_id.get(grant_id)] * -amount

    @rule(tokens=st.lists(st.integers(0, 30), min_size=1, max_size=4))
    def post_usage(self, tokens: list[int]) -> None:
        entries = [books.used(self.owner, self.price, tokens=number) for number in tokens]
        record(entries)
        results = books.at_once([post_batch, post_batch])
        assert sum(results) == len(entries)
        cost = sum(entry.cost_nanos for entry in entries)
        for _ in range(cost):
            self.model.take()
        self.posted += cost

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        rests = dict(Grant.objects.for_organization(self.owner.id).values_list("id", "remaining_nanos"))
        assert rests == {grant.id: grant.rest for grant in self.model.grants}
        assert ledger.balance_nanos(self.owner.id) == self.model.balance
        told = [books.account_total(kind, self.owner) for kind in ("revenue", "breakage", "write_offs")]
        assert told == [self.model.revenue + self.posted, self.model.breakage, -self.model.written_off]

    def teardown(self) -> None:
        assert books.failed_proofs() == []


@pytest.mark.timeout(0 if EXAMPLES > 40 else 300)
@pytest.mark.django_db(transaction=True)
def test_d22_any_history_ends_where_the_model_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LedgerMachine, "price", factories.stored_price(input="0.001", output="0"), raising=False)
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=16,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
