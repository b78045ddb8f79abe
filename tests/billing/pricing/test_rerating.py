"""Re-rating: the difference to the prices of now, once, for whoever was billed, whatever dies in between."""

import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import sleep

import pytest
from django.db import InternalError, connection, transaction
from django.db.utils import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.models import Organization
from apps.billing import grants
from apps.billing.invoices.months import Month
from apps.billing.invoices.statements import statement
from apps.billing.ledger import balance_nanos
from apps.billing.models import LedgerAccount, LedgerTransaction, ReratedUsage, Rerating, TransactionKind
from apps.billing.posting import post_batch
from apps.billing.pricing import rerating
from apps.billing.pricing.rerating import finish_all, organization_changes, preview_rerating, rerate, start_rerating
from apps.billing.receipt_reading import find_receipt
from apps.core.errors import Conflict, InvalidInput, NotFound
from apps.usage.recording import record
from tests.billing import books
from tests.billing.pricing.traffic import MODEL, billed, corrected, deltas, list_price, now, post, rule, window
from tests.billing.test_killed_posting import others, wait_for

ROOT = Path(__file__).resolve().parents[3]
WHY = {"reason": "Typo in the price", "actor": "test"}
pytestmark = pytest.mark.django_db


def balances(*owners: Organization) -> list[int]:
    return [balance_nanos(owner.id) for owner in owners]


def rerated() -> Rerating:
    """The last hour, corrected."""
    done = rerate(window(), **WHY)
    assert done is not None
    return done


def test_the_difference_comes_back_once() -> None:
    one, two = books.organization("One"), books.organization("Two")
    price = list_price()
    post(*(billed(one, price) for _ in range(3)), billed(two, price, tokens=20))
    assert balances(one, two) == [-4_500, -3_000]
    corrected("0.10")
    table = preview_rerating(window())
    rows = [
        (name, each.requests, each.before_nanos, each.after_nanos, each.difference_nanos) for name, each in table.rows
    ]
    assert rows == [("one", 3, 4_500, 3_000, -1_500), ("two", 1, 3_000, 2_000, -1_000)]
    assert (table.total.requests, table.total.difference_nanos) == (4, -2_500)
    assert (balances(one, two), Rerating.objects.count()) == ([-4_500, -3_000], 0)

    done = rerated()
    assert (done.status, organization_changes(done)) == ("applied", [("one", 3, -1_500), ("two", 1, -1_000)])
    assert (balances(one, two), deltas(one), deltas(two)) == ([-3_000, -2_000], [-500] * 3, [-1_000])
    assert (rerate(window(), **WHY), preview_rerating(window()).total.changed) == (None, 0)
    assert Rerating.objects.count() == 1
    assert balances(one, two) == [-3_000, -2_000]
    assert books.failed_proofs() == []


def test_more_is_charged_from_credit_in_its_order() -> None:
    owner = books.organization()
    given = books.credit(owner, 2_000)
    post(billed(owner, list_price()))
    corrected("0.20")
    rerate(window(), **WHY)
    assert (books.rest_of(given), balances(owner)) == ([0], [0])
    entry = LedgerTransaction.objects.get(kind=TransactionKind.CHARGE)
    assert entry.reason.startswith(f"Corrected prices of {MODEL}, ")
    assert entry.reason.endswith(" UTC: Typo in the price")
    assert entry.actor == "test"
    assert books.account_total("revenue", owner) == 2_000
    assert books.failed_proofs() == []


def test_what_comes_back_pays_a_debt_and_stands_in_the_statement() -> None:
    owner = books.organization()
    post(billed(owner, list_price()))
    corrected("0.05")
    rerate(window(), **WHY)
    assert balances(owner) == [-500]
    shown = statement(owner.id, Month.of(now()), now=now())
    [section] = shown.sections
    assert (section.name, section.total_nanos, shown.usage_nanos, shown.adds_up) == (
        "Refunds of charges", 1_000, 1_500, True,
    )  # fmt: skip
    assert "Typo in the price" in section.movements[0].reason


def test_never_more_than_was_held() -> None:
    owner = books.organization()
    price = list_price()
    post(
        billed(owner, price, hold=1_600),
        billed(owner, price, hold=1_500),
        billed(owner, price, hold=1_000),
        billed(owner, price),
    )
    corrected("0.30")
    rerate(window(), **WHY)
    assert sorted(deltas(owner)) == [100, 1_500]
    corrected("0.09", starts_at=now() - timedelta(minutes=90))
    rerate(window(), **WHY)
    assert balances(owner) == [-3_600]
    assert books.failed_proofs() == []


def test_rules_of_then_count_and_the_window_has_edges() -> None:
    owner = books.organization()
    price = list_price()
    requests = [billed(owner, price) for _ in range(2)]
    post(*requests)
    rule(owner, "-10")
    assert preview_rerating(window()).total.difference_nanos == -300
    assert preview_rerating(window(model_id=MODEL, end=now() - timedelta(minutes=5))).total.requests == 0
    rule(owner, "20", starts_at=now() - timedelta(minutes=30))
    rule(owner, "50", starts_at=now() + timedelta(minutes=30))
    assert preview_rerating(window()).total.difference_nanos == 600
    done = rerated()
    [row] = set(ReratedUsage.objects.filter(rerating=done).values_list("price_rule_id", "price_version_id"))
    assert row[0].startswith("rule_")
    assert row[1] == price.version_id


def test_sandbox_traffic_other_models_and_what_had_no_price_stay_as_they_are() -> None:
    owner = books.organization()
    price = list_price(starts_at=now() + timedelta(minutes=1))
    post(billed(owner, price), billed(owner, price, sandbox=True))
    assert preview_rerating(window()).total.changed == 0
    corrected("0.30")
    assert preview_rerating(window()).total.requests == 1
    with pytest.raises(NotFound):
        preview_rerating(window(model_id="nobody"))


def test_what_waits_for_posting_is_not_touched() -> None:
    owner = books.organization()
    price = list_price()
    record([billed(owner, price)])
    corrected("0.10")
    table = preview_rerating(window())
    assert (table.total.requests, table.unposted) == (0, 1)
    with pytest.raises(Conflict, match="1 requests of the window wait for posting"):
        rerate(window(), **WHY)
    assert Rerating.objects.count() == 0
    post_batch()
    rerate(window(), **WHY)
    assert balances(owner) == [-1_000]


def test_a_re_rating_that_was_begun_waits_for_posting_and_keeps_the_prices_of_its_beginning() -> None:
    owner = books.organization()
    price = list_price()
    post(billed(owner, price))
    corrected("0.10")
    start_rerating(window(), **WHY)
    record([billed(owner, price)])
    assert finish_all() == 0
    post_batch()
    corrected("9", starts_at=now() - timedelta(minutes=90))
    assert finish_all() == 1
    assert balances(owner) == [-2_000]
    assert finish_all() == 0


@pytest.mark.parametrize("reason", ["", "  ", "x" * 301])
def test_a_reason_is_needed(reason: str) -> None:
    list_price()
    with pytest.raises(InvalidInput):
        rerate(window(), reason=reason, actor="test")


def test_an_empty_window_is_refused() -> None:
    list_price()
    moment = now()
    with pytest.raises(InvalidInput):
        preview_rerating(window(start=moment, end=moment))


def test_the_receipt_lists_the_correction(tmp_path: Path) -> None:
    owner = books.organization()
    request = billed(owner, list_price())
    post(request)
    corrected("0.10")
    rerate(window(), **WHY)
    receipt = find_receipt(owner.id, request.opened.request_id, journal_root=tmp_path)
    assert receipt is not None
    [corr] = receipt.reratings
    assert (corr.reason, corr.delta_nanos) == ("Typo in the price", -500)
    assert (receipt.charged_nanos, receipt.standing_nanos) == (1_500, 1_000)


def test_the_receipt_says_what_the_hold_leaves_out(tmp_path: Path) -> None:
    owner = books.organization()
    request = billed(owner, list_price(), hold=1_600)
    post(request)
    corrected("0.30")
    rerated()
    receipt = find_receipt(owner.id, request.opened.request_id, journal_root=tmp_path)
    assert receipt is not None
    [row] = receipt.reratings
    assert (row.delta_nanos, row.overage_nanos, receipt.standing_nanos) == (100, 1_400, 1_600)


def test_what_is_under_way_is_finished_before_anybody_says_that_nothing_is_to_be_corrected() -> None:
    owner = books.organization()
    post(billed(owner, list_price()))
    corrected("0.10")
    start_rerating(window(end=now() + timedelta(minutes=30)), **WHY)
    corrected("0.15", starts_at=now() - timedelta(minutes=90))
    rerated()
    assert (balances(owner), deltas(owner)) == ([-1_500], [-500, 500])


def test_corrections_and_rules_cannot_be_changed() -> None:
    owner = books.organization()
    post(billed(owner, list_price()))
    rule(owner, "-10")
    done = rerated()
    for statement_ in (
        "UPDATE billing_reratedusage SET delta_nanos = 1",
        "DELETE FROM billing_reratedusage",
        "UPDATE billing_pricerule SET percent = 1",
        "DELETE FROM billing_pricerule",
        "DELETE FROM billing_rerating",
        "UPDATE billing_rerating SET reason = 'x'",
        "UPDATE billing_rerating SET status = 'applying'",
    ):
        with (
            pytest.raises((IntegrityError, InternalError), match="append-only"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement_)
    assert done.status == "applied"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.none() | st.integers(0, 20_000)), max_size=6),
    st.lists(
        st.tuples(st.sampled_from(["0", "0.07", "0.15", "0.31"]), st.none() | st.integers(-1000, 1000)),
        min_size=1,
        max_size=3,
    ),
)
def test_any_sequence_of_corrections_ends_where_the_last_one_says(
    requests: list[tuple[int, int, int | None]], steps: list[tuple[str, int | None]]
) -> None:
    with transaction.atomic():
        owners = [books.organization(f"Owner {number}") for number in range(3)]
        price = list_price()
        post(*(billed(owners[number], price, tokens=tokens, hold=hold) for number, tokens, hold in requests))
        for step, (amount, percent) in enumerate(steps):
            corrected(amount, starts_at=now() - timedelta(minutes=100 - step))
            if percent is not None:
                rule(owners[0], str(percent / 10), starts_at=now() - timedelta(minutes=100 - step))
            foretold = preview_rerating(window()).total
            before = sum(balances(*owners))
            rerate(window(), **WHY)
            assert sum(balances(*owners)) == before - foretold.difference_nanos
            assert preview_rerating(window()).total.changed == 0
            assert sum(balances(*owners)) == -foretold.after_nanos
        assert books.failed_proofs() == []
        transaction.set_rollback(True)


@pytest.mark.django_db(transaction=True)
def test_two_at_once_correct_everything_once_beside_posting() -> None:
    owners = [books.organization(f"Owner {number}") for number in range(4)]
    price = list_price()
    post(*(billed(owner, price) for owner in owners for _ in range(5)))
    corrected("0.10")
    chosen = window(end=now())
    sleep(0.05)  # the clock of ids ticks in milliseconds
    later = [billed(owner, price) for owner in owners for _ in range(5)]

    def post_more() -> None:
        post(*later)

    results = books.at_once([partial(rerate, chosen, **WHY), partial(rerate, chosen, **WHY), finish_all, post_more])
    assert [result for result in results if isinstance(result, BaseException)] == []
    assert balances(*owners) == [-5_000 - 7_500] * 4
    assert ReratedUsage.objects.count() == 20
    assert books.failed_proofs() == []


RERATE = """
import sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from apps.billing.pricing.rerating import finish_all
print("ready", flush=True)
finish_all()
"""


@pytest.mark.django_db(transaction=True)
def test_killed_in_the_middle_it_is_finished_by_the_same_command() -> None:
    """The process is held at the wallet of the second organization, its requests corrected, and killed there."""
    owners = sorted((books.organization(f"Owner {number}") for number in range(3)), key=lambda owner: owner.id)
    price = list_price()
    post(*(billed(owner, price) for owner in owners for _ in range(3)))
    corrected("0.10")
    chosen = window(end=now())
    begun = start_rerating(chosen, **WHY)
    assert begun is not None
    command = [sys.executable, "-c", RERATE, str(connection.settings_dict["NAME"])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with transaction.atomic():
                list(LedgerAccount.objects.for_organization(owners[1].id).select_for_update())
                assert process.stdout.readline() == "ready\n"
                wait_for(lambda: process.poll() is not None or others(waiting=True) == 1)
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=10)
            wait_for(lambda: others() == 0)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL
    assert balances(*owners) == [-3_000, -4_500, -4_500]
    assert books.failed_proofs() == []
    done = rerate(chosen, **WHY)
    assert done is not None
    assert (done.id, done.status) == (begun.id, "applied")
    assert balances(*owners) == [-3_000] * 3
    assert Rerating.objects.count() == 1
    assert books.failed_proofs() == []


@pytest.mark.django_db(transaction=True)
def test_an_organization_that_fails_leaves_the_others_done_and_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    owners = sorted((books.organization(f"Owner {number}") for number in range(3)), key=lambda owner: owner.id)
    price = list_price()
    post(*(billed(owner, price) for owner in owners))
    corrected("0.10")

    def fail(organization_id: str, *args: object, **kwargs: object) -> None:
        if organization_id == owners[1].id:
            raise RuntimeError("the machine is on fire")
        correct(organization_id, *args, **kwargs)  # type: ignore[arg-type]  # as it was called

    correct = grants.correct_usage
    with monkeypatch.context() as patched:
        patched.setattr(rerating.grants, "correct_usage", fail)
        with pytest.raises(RuntimeError):
            rerate(window(), **WHY)
    assert balances(*owners) == [-1_000, -1_500, -1_500]
    assert deltas(owners[1]) == []
    assert finish_all() == 1
    assert balances(*owners) == [-1_000] * 3
