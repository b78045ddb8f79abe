"""Rules of money that no other test proves by itself; docs/invariants.md lists all rules with their tests."""

import asyncio
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.db import connection
from django.db.models import ProtectedError

from apps.accounts.models import Organization, User
from apps.billing import ledger
from apps.billing.admission import period_starts
from apps.billing.models import LedgerTransaction
from apps.billing.posting import post_batch
from apps.billing.rating import cost_nanos
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.core.ids import new_id
from apps.gateway.metering.record import Meter
from apps.keys.models import ApiKey
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from apps.usage.journal import SEGMENT_PATTERN, Journal, read_entries
from apps.usage.models import UsageRecord, UsageRollup
from apps.usage.recording import record
from tests import factories
from tests.acceptance.asking import Answer, caller
from tests.billing import books
from tests.money.soaking import seed_of_this_run
from tests.money.stage import USD, Stage


@pytest.fixture
def chance() -> random.Random:
    return random.Random(seed_of_this_run())


def post_all() -> None:
    while post_batch():
        pass


@pytest.mark.django_db
def test_a_price_that_changes_later_changes_no_bill(chance: random.Random) -> None:
    """D6: every record names the version it was admitted with, and that version alone gives its cost, for ever."""
    owner = books.organization()
    prices = [factories.stored_price(input="0.15", output="0.60")]
    entries = []
    for number in range(60):
        if chance.random() < 0.2:
            amount = f"{chance.randint(1, 10**9) / 10**9:.9f}"
            start = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=number)
            prices.append(factories.stored_price(input=amount, output=amount, starts_at=start))
        entries.append(books.used(owner, chance.choice(prices), tokens=chance.randint(0, 9_999)))
        record(entries[-1:])
        if chance.random() < 0.3:
            post_all()
    post_all()
    versions = {version.id: price_from_version(version) for version in PriceVersion.objects.all()}
    for row in UsageRecord.objects.filter(organization_id=owner.id):
        tokens = TokenCounts(input=row.input_tokens)
        assert row.cost_nanos == cost_nanos(tokens, versions[row.price_version_id])
    assert ledger.balance_nanos(owner.id) == -sum(entry.cost_nanos for entry in entries)
    assert books.failed_proofs() == []


def test_a_hold_is_settled_only_when_the_end_stands_in_the_journal(tmp_path: Path) -> None:
    """D28: what Redis gives back can be read from the journal before, so no crash takes it away again."""
    journal = Journal(tmp_path, max_bytes=1 << 20)
    seen: list[bool] = []

    def settle(closed: RequestClosed) -> None:
        content = b"".join(path.read_bytes() for path in sorted(journal.folder.glob(SEGMENT_PATTERN)))
        seen.append(any(entry == closed for entry, _ in read_entries(content)))

    meter = Meter(journal, factories.opened(hold_nanos=10**6), settle=settle)
    meter.close(Outcome.COMPLETED, TokenCounts(input=5, output=5))
    meter.close(Outcome.COMPLETED, TokenCounts(input=9, output=9))
    journal.close()
    assert seen == [True]


def id_of(moment: datetime) -> str:
    """A request id of that moment."""
    return f"req_{int(moment.timestamp() * 1000):012x}{new_id('req')[-20:]}"


BORDER = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.django_db
def test_a_request_at_the_edge_of_a_month_stays_in_its_month_however_late_it_is_posted(chance: random.Random) -> None:
    """D17: the id says when a request began; no clock of whoever ships or posts moves it, and no row is lost."""
    owner, price = books.organization(), factories.stored_price()
    offsets = [-3_600_000, -1, 0, 1, 3_599_999]
    entries = [
        books.used(owner, price, request_id=id_of(BORDER + timedelta(milliseconds=ms)), tokens=10) for ms in offsets
    ]
    chance.shuffle(entries)
    for entry in entries:
        with time_machine.travel(BORDER + timedelta(hours=chance.randint(0, 1_000)), tick=True):
            record([entry])
            post_all()
    before = UsageRollup.objects.filter(organization_id=owner.id, hour__lt=BORDER)
    after = UsageRollup.objects.filter(organization_id=owner.id, hour__gte=BORDER)
    assert sum(before.values_list("requests", flat=True)) == 2
    assert sum(after.values_list("requests", flat=True)) == 3
    for entry, ms in zip(sorted(entries, key=lambda one: one.opened.request_id), offsets, strict=True):
        month = datetime.fromtimestamp(period_starts(entry.opened.request_id)[2], UTC)
        assert month == (BORDER if ms >= 0 else datetime(2026, 10, 1, tzinfo=UTC))


@pytest.mark.django_db
def test_records_in_any_order_and_any_number_of_times_give_the_same_sums(chance: random.Random) -> None:
    """D19, D20: hourly sums and charges are those of the records, whatever came first and however often."""
    price = factories.stored_price()
    sums = []
    base = [(chance.randint(0, 500), chance.randint(0, 5)) for _ in range(120)]
    for _ in range(2):
        owner = books.organization()
        entries = [
            books.used(owner, price, tokens=tokens, request_id=id_of(BORDER + timedelta(hours=hour)))
            for tokens, hour in base
        ]
        arriving = entries + chance.choices(entries, k=200)
        chance.shuffle(arriving)
        while arriving:
            size = chance.randint(1, 40)
            record(arriving[:size])
            arriving = arriving[size:]
            if chance.random() < 0.5:
                post_all()
        post_all()
        rollups = UsageRollup.objects.filter(organization_id=owner.id).order_by("hour")
        sums.append(list(rollups.values_list("hour", "requests", "input_tokens", "cost_nanos")))
        assert ledger.balance_nanos(owner.id) == -sum(entry.cost_nanos for entry in entries)
    assert sums[0] == sums[1]
    assert books.failed_proofs() == []


@pytest.mark.django_db
def test_many_tiny_requests_are_charged_the_sum_of_their_records_to_the_nano(chance: random.Random) -> None:
    """D21: one rounding a request and none afterwards: records, hourly sums and the balance are one number."""
    owner, price = books.organization(), factories.stored_price(input="0.000333333", output="0.000000001")
    entries = [books.used(owner, price, tokens=chance.randint(0, 9_999)) for _ in range(3_000)]
    record(entries)
    post_all()
    spent = sum(entry.cost_nanos for entry in entries)
    assert sum(UsageRecord.objects.filter(organization_id=owner.id).values_list("cost_nanos", flat=True)) == spent
    assert sum(UsageRollup.objects.filter(organization_id=owner.id).values_list("cost_nanos", flat=True)) == spent
    assert ledger.balance_nanos(owner.id) == -spent


@pytest.mark.django_db
def test_nobody_who_has_a_ledger_can_be_deleted_and_a_user_or_key_leaves_it_whole() -> None:
    """D24: keys are revoked and people leave; the books of their organization stay."""
    project = factories.project()
    owner = Organization.objects.get(pk=project.organization_id)
    user = User.objects.create_user(email="leaver@example.com", password="a long password")
    books.credit(owner, 1_000)
    record([books.used(owner, factories.stored_price(), project_id=project.id, key_id="key_gone")])
    post_all()
    before = list(LedgerTransaction.objects.values_list("id", "content_digest").order_by("id"))
    user.delete()
    ApiKey.objects.filter(organization=owner).delete()
    with pytest.raises(ProtectedError):
        owner.delete()
    assert list(LedgerTransaction.objects.values_list("id", "content_digest").order_by("id")) == before
    assert UsageRecord.objects.filter(key_id="key_gone").count() == 1
    assert books.failed_proofs() == []


@pytest.fixture
def worker(stage: Stage) -> Iterator[Stage]:
    process = stage.worker()
    yield stage
    stage.kill(process)


@pytest.mark.timeout(200)
def test_what_never_reaches_an_upstream_costs_nothing_and_leaves_no_record(worker: Stage) -> None:
    """D25: lists, mistakes and refusals: no call upstream, no record, no charge."""
    owner, key = worker.found(USD)
    number = worker.truth.last_number()

    async def ask_in_vain() -> list[Answer]:
        async with caller(worker, key) as asking, caller(worker, "ak_wrong") as stranger:  # type: ignore[arg-type]  # it has an `api`
            return [
                await asking.ask("no-such-model"),
                await asking.ask("truth-echo", temperature="hot"),
                await asking.ask("truth-echo", top_p=9),
                await asking.ask("truth-echo", [{"type": "image_url", "image_url": {"url": "https://example.com/a"}}]),
                await asking.ask("truth-echo", max_tokens=0),
                await stranger.ask("truth-echo"),
            ]

    answers = asyncio.run(ask_in_vain())
    assert all(400 <= answer.status < 500 for answer in answers), [answer.status for answer in answers]
    worker.settle()
    assert worker.truth.entries_since(number) == {}
    with worker.database() as database:
        found = database.execute("SELECT count(*) AS number FROM usage_usagerecord WHERE organization_id = %s", [owner])
        assert found.fetchone() == {"number": 0}
    assert worker.ask("balance", owner) == USD
    assert worker.money(owner).get("held", "0") == "0"


@pytest.mark.django_db
def test_the_database_keeps_one_record_a_request_by_a_unique_key() -> None:
    """D4: dropping that key would be seen: it is asked for by name."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'usage_usagerecord'::regclass"
            " AND indisunique"
        )
        assert [row[0].rpartition(" USING ")[2] for row in cursor.fetchall()] == ["btree (day, request_id)"]
