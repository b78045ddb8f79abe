"""Posting: records become charges and rollups in one transaction, each exactly once."""

import logging
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError
from django.db.models import ProtectedError, Sum
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import Organization
from apps.accounts.organizations import default_project
from apps.billing import ledger, posting
from apps.billing.grants import expire_due
from apps.billing.models import Alert, LedgerLine, LedgerTransaction
from apps.billing.posting import post_batch
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import Price
from apps.core.ids import new_id
from apps.keys.issuing import create_key, revoke_key
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from apps.usage.models import UnpostedUsage, UsageRecord, UsageReview, UsageRollup
from apps.usage.recording import record
from tests import factories
from tests.billing import books

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)


@pytest.fixture
def price(db: None) -> Price:
    return factories.stored_price()


@pytest.fixture
def owner(db: None) -> Organization:
    return books.organization()


def post_all() -> int:
    posted = 0
    while found := post_batch():
        posted += found
    return posted


def request_id_at(hour: int, serial: int) -> str:
    moment = NOON.replace(hour=hour)
    return f"req_{int(moment.timestamp() * 1000):012x}{serial:020x}"


def test_a_grant_that_has_ended_still_pays_for_usage_that_waits_for_posting(owner: Organization, price: Price) -> None:
    """`D22`: what was used before the end is paid from the grant, however late it is posted; only the rest expires."""
    end = datetime.now(UTC) + timedelta(seconds=1)
    grant = books.credit(owner, 10_000, expires_at=end)
    waiting = books.used(owner, price)
    record([waiting])
    late = end + timedelta(hours=2)
    assert expire_due(late) == 0
    assert post_all() == 1
    assert expire_due(late) == 1
    assert books.rest_of(grant) == [0]
    assert ledger.balance_nanos(owner.id) == 0
    assert books.account_total("breakage") == 10_000 - waiting.cost_nanos


def test_posted_usage_is_charged_in_one_transaction_an_organization(owner: Organization, price: Price) -> None:
    other = books.organization("Other")
    grant = books.credit(owner, 4_000)
    record([books.used(owner, price), books.used(other, price), books.used(owner, price, tokens=20)])
    assert post_all() == 3
    usage = LedgerTransaction.objects.filter(kind="usage")
    assert sorted(usage.values_list("organization_id", flat=True)) == sorted([owner.id, other.id])
    assert (ledger.balance_nanos(owner.id), ledger.balance_nanos(other.id)) == (-500, -1_500)
    assert books.rest_of(grant) == [0]
    assert usage.get(organization=owner).reason == "Usage of 2 requests"
    assert usage.get(organization=other).reason == "Usage of 1 request"
    books.settle_constraints()
    assert books.failed_proofs() == []


def test_d25_what_costs_nothing_is_not_charged(owner: Organization, price: Price) -> None:
    failed = factories.closed(
        factories.opened(organization_id=owner.id, price=price),
        tokens=TokenCounts(),
        cost_nanos=0,
        outcome=Outcome.FAILED,
    )
    record([failed])
    assert post_all() == 1
    assert not LedgerTransaction.objects.exists()
    assert books.failed_proofs() == []


def test_usage_of_an_organization_that_is_gone_stops_nobody(owner: Organization, price: Price) -> None:
    gone = Organization(id=new_id("org"), name="Gone")
    record([books.used(gone, price), books.used(owner, price)])
    assert post_all() == 2
    books.settle_constraints()
    assert ledger.balance_nanos(gone.id) == ledger.balance_nanos(owner.id) == -1_500
    assert books.failed_proofs() == []


def test_records_that_come_back_to_the_work_list_are_not_posted_again(owner: Organization, price: Price) -> None:
    entry = books.used(owner, price)
    record([entry])
    post_all()
    UnpostedUsage.objects.create(
        request_id=entry.opened.request_id, day=UsageRecord.objects.get(pk=entry.opened.request_id).day
    )
    with pytest.raises(IntegrityError, match="idempotency_key"):
        post_batch()
    assert ledger.balance_nanos(owner.id) == -1_500
    assert UsageRollup.objects.get().requests == 1


def test_a_cost_that_differs_from_its_price_is_an_error_in_the_log(
    owner: Organization, price: Price, caplog: pytest.LogCaptureFixture
) -> None:
    entry = books.used(owner, price)
    record([factories.closed(entry.opened, tokens=entry.tokens, cost_nanos=entry.cost_nanos + 1)])
    with caplog.at_level(logging.ERROR):
        post_all()
    assert "cost differs from its price version" in caplog.text


def some_usage(owner: Organization, price: Price, number: int) -> list[RequestClosed]:
    """Requests over three hours with every bucket used."""
    entries = []
    for serial in range(number):
        tokens = TokenCounts(serial, serial % 3, serial % 5, serial % 7, serial % 2)
        opened = factories.opened(
            organization_id=owner.id, price=price, request_id=request_id_at(10 + serial % 3, serial)
        )
        cost = cost_nanos(tokens, price)
        entries.append(factories.closed(opened, tokens=tokens, cost_nanos=cost, estimated=serial % 4 == 0))
    return entries


SUMS = ("requests", "estimated_requests", "input_tokens", "output_tokens", "cost_nanos")


@pytest.mark.parametrize("seed", range(4))
def test_d19_any_order_and_any_duplicates_give_the_same_sums(
    owner: Organization, price: Price, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    entries = some_usage(owner, price, 120)
    arriving = entries * 3
    chance = random.Random(seed)
    chance.shuffle(arriving)
    monkeypatch.setattr(posting, "BATCH_ROWS", 17)
    while arriving:
        size = chance.randint(1, 60)
        record(arriving[:size])
        arriving = arriving[size:]
        if chance.random() < 0.5:
            post_batch()
    post_all()

    assert ledger.balance_nanos(owner.id) == -sum(entry.cost_nanos for entry in entries)
    by_hour = {row["hour"].hour: row for row in UsageRollup.objects.values("hour", *SUMS)}
    for hour in (10, 11, 12):
        expected = [entry for serial, entry in enumerate(entries) if 10 + serial % 3 == hour]
        assert [by_hour[hour][name] for name in SUMS] == [
            len(expected),
            sum(entry.estimated for entry in expected),
            sum(entry.tokens.input for entry in expected),
            sum(entry.tokens.output for entry in expected),
            sum(entry.cost_nanos for entry in expected),
        ]
    books.settle_constraints()
    assert books.failed_proofs() == []


def test_d20_rollups_equal_the_posted_records_and_no_others(
    owner: Organization, price: Price, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(some_usage(owner, price, 30))
    monkeypatch.setattr(posting, "BATCH_ROWS", 20)
    assert post_batch() == 20
    posted = UsageRecord.objects.exclude(pk__in=UnpostedUsage.objects.values("pk"))
    assert UsageRollup.objects.aggregate(cost=Sum("cost_nanos"), requests=Sum("requests")) == {
        "cost": posted.aggregate(cost=Sum("cost_nanos"))["cost"],
        "requests": 20,
    }
    books.settle_constraints()
    assert books.failed_proofs() == []


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.lists(st.integers(0, 3000), min_size=1, max_size=50))
def test_d21_one_rounding_a_request_loses_at_most_half_a_nano_each(
    input_price: int, output_price: int, counts: list[int]
) -> None:
    price = Price(
        version_id=1, starts_at=0.0, input=input_price, output=output_price, cache_read=0, cache_write=0, reasoning=0
    )
    exact = sum(Decimal(number * (input_price + output_price)) / 10**6 for number in counts)
    rounded = sum(cost_nanos(TokenCounts(input=number, output=number), price) for number in counts)
    assert abs(rounded - exact) <= Decimal(len(counts)) / 2


def test_d21_the_charge_is_the_sum_of_the_rounded_requests(owner: Organization) -> None:
    odd = factories.stored_price("odd", input="0.0005", output="0", cache_read="0")
    entries = [books.used(owner, odd, tokens=tokens, model="odd") for tokens in (1, 2, 3, 5, 7) * 40]
    record(entries)
    post_all()
    charged = -ledger.balance_nanos(owner.id)
    assert charged == sum(entry.cost_nanos for entry in entries) == (0 + 1 + 2 + 2 + 4) * 40


def test_d24_what_is_deleted_or_revoked_stays_in_the_ledger(owner: Organization, price: Price) -> None:
    user = get_user_model().objects.create_user("actor@example.com")
    key = create_key(default_project(owner), name="Key", created_by=user).key
    books.credit(owner, 2_000)
    record([books.used(owner, price, key_id=key.id)])
    post_all()
    before = list(LedgerLine.objects.order_by("id").values())
    revoke_key(key)
    user.delete()
    with pytest.raises(ProtectedError):
        owner.delete()
    assert list(LedgerLine.objects.order_by("id").values()) == before
    books.settle_constraints()
    assert books.failed_proofs() == []


TIERED = {"variants": [{"min_input_tokens": 50, "input": "1.00"}], "audio_input": "8.00", "per_request": "0.000001"}


def test_what_is_posted_is_rated_again_with_all_that_the_price_can_say(
    owner: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    price = factories.stored_price("tiered", **TIERED)
    for tokens in (TokenCounts(input=49), TokenCounts(input=40, audio_input=10), TokenCounts(audio_output=3)):
        opened = factories.opened(organization_id=owner.id, price=price)
        record([factories.closed(opened, tokens=tokens, cost_nanos=cost_nanos(tokens, price))])
    assert post_all() == 3
    assert not caplog.records
    row = UsageRollup.objects.aggregate(audio_in=Sum("audio_input_tokens"), audio_out=Sum("audio_output_tokens"))
    assert row == {"audio_in": 10, "audio_out": 3}
    assert books.failed_proofs() == []


def test_a_bill_below_the_cost_by_its_overage_is_as_agreed_and_any_other_is_reported(
    owner: Organization, price: Price, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = TokenCounts(input=10)
    cost = cost_nanos(tokens, price)
    opened = [factories.opened(organization_id=owner.id, price=price) for _ in range(2)]
    record([
        factories.closed(opened[0], tokens=tokens, cost_nanos=cost - 100, overage_nanos=100),
        factories.closed(opened[1], tokens=tokens, cost_nanos=cost - 100, overage_nanos=99),
    ])  # fmt: skip
    post_all()
    (entry,) = caplog.records
    assert (entry.request_id, entry.expected) == (opened[1].request_id, cost - 99)  # type: ignore[attr-defined]  # by `extra`
    assert -ledger.balance_nanos(owner.id) == 2 * (cost - 100)


def test_test_traffic_is_summed_apart_and_never_charged(owner: Organization, price: Price) -> None:
    tokens = TokenCounts(input=10)
    opened = [factories.opened(organization_id=owner.id, price=price, sandbox=sandbox) for sandbox in (True, False)]
    record([factories.closed(each, tokens=tokens, cost_nanos=cost_nanos(tokens, price)) for each in opened])
    post_all()
    assert -ledger.balance_nanos(owner.id) == cost_nanos(tokens, price)
    assert dict(UsageRollup.objects.values_list("sandbox", "requests")) == {True: 1, False: 1}
    assert books.failed_proofs() == []


def test_usage_to_review_waits_for_an_operator_and_raises_one_alert_a_day(owner: Organization, price: Price) -> None:
    opened = [factories.opened(organization_id=owner.id, price=price) for _ in range(3)]
    whole = factories.closed(opened[0], tokens=TokenCounts(), cost_nanos=0)
    broken = [
        factories.closed(each, tokens=TokenCounts(), cost_nanos=0, review="usage is no object", raw_usage="[]")
        for each in opened[1:]
    ]
    assert record([whole, *broken]) == 3
    assert record(broken) == 0
    waiting = dict(UsageReview.objects.values_list("request_id", "reason"))
    assert waiting == {each.request_id: "usage is no object" for each in opened[1:]}
    assert post_all() == 3
    alert = Alert.objects.get(kind="usage.review")
    assert (alert.organization_id, alert.details["model"]) == (None, opened[1].model)
    assert "usage is no object" in alert.text
    assert set(UsageRecord.objects.exclude(review="").values_list("raw_usage", flat=True)) == {"[]"}
