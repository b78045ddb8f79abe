"""`crun price` and `crun rerate`: what they print, what they refuse, and that nothing is changed unasked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apps.billing.ledger import balance_nanos
from apps.billing.models import PriceRule, Rerating
from apps.catalog.models import PriceVersion
from apps.core.errors import Conflict, InvalidInput, NotFound
from crun.cli.prices import price
from crun.cli.rerate import rerate_window
from tests.announcements import listening
from tests.billing import books
from tests.billing.pricing.traffic import MODEL, billed, corrected, list_price, now, post

pytestmark = pytest.mark.django_db
AMOUNTS = ("--input", "1.25", "--output", "10")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(price, arguments)


def rerate(*arguments: str) -> Result:
    return CliRunner().invoke(rerate_window, arguments)


def ago(**span: int) -> str:
    return (now() - timedelta(**span)).isoformat()


@pytest.mark.django_db(transaction=True)
def test_a_price_is_set_and_gateways_are_told() -> None:
    list_price()
    with listening() as heard:
        result = run("set", MODEL, *AMOUNTS, "--cache-read", "0.125", "--per-request", "0.01", "--note", "New")
        assert heard() == ["catalog"]
    assert result.exit_code == 0, result.output
    made = PriceVersion.objects.get(pk=int(result.stdout))
    assert (float(made.input), float(made.output), float(made.cache_read or 0), made.note) == (1.25, 10, 0.125, "New")
    assert abs((made.starts_at - now()).total_seconds()) < 10
    lines = run("list", MODEL).stdout.splitlines()
    assert lines[0].startswith(f"{made.pk}\t")
    assert "input=1.25 output=10 cache_read=0.125 per_request=0.01\t\tNew" in lines[0]
    assert len(lines) == 2


def test_a_start_in_the_past_must_be_meant() -> None:
    list_price()
    assert isinstance(run("set", MODEL, *AMOUNTS, "--from", ago(days=1)).exception, InvalidInput)
    result = run("set", MODEL, *AMOUNTS, "--from", ago(days=1), "--allow-past")
    assert result.exit_code == 0
    assert "crun rerate" in result.stderr
    start = PriceVersion.objects.order_by("-pk")[0].starts_at.isoformat()
    assert isinstance(run("set", MODEL, *AMOUNTS, "--from", start, "--allow-past").exception, Conflict)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "-1", "--output", "1"), "input"),
        (("--input", "1", "--output", "0.0000000001"), "output"),
        (("--input", "1000001", "--output", "1"), "input"),
        (("--input", "nan", "--output", "1"), "no decimal number"),
        (("--input", "1"), "Missing option '--output'"),
    ],
)
def test_prices_that_make_no_sense_are_refused(arguments: tuple[str, ...], words: str) -> None:
    list_price()
    result = run("set", MODEL, *arguments)
    assert result.exit_code != 0
    assert words in result.output + str(result.exception)
    assert PriceVersion.objects.count() == 1


def test_a_model_that_is_not_there() -> None:
    assert isinstance(run("set", "nobody", *AMOUNTS).exception, NotFound)
    assert isinstance(run("list", "nobody").exception, NotFound)
    assert isinstance(run("preview", "nobody", *AMOUNTS).exception, NotFound)


def test_variants_come_from_a_file_and_their_loss_is_told(tmp_path: Path) -> None:
    list_price(cache_read="0.01")
    file = tmp_path / "variants.yaml"
    file.write_text('- {min_input_tokens: 200001, input: "2.50"}\n')
    first = run("set", MODEL, *AMOUNTS, "--variants", str(file))
    assert first.exit_code == 0, first.output
    assert "had cache_read; this one has not" in first.stderr
    assert PriceVersion.objects.get(pk=int(first.stdout)).variants == [{"min_input_tokens": 200001, "input": "2.5"}]
    file.write_text('- {input: "2.50"}\n')
    assert "has no condition" in run("set", MODEL, *AMOUNTS, "--variants", str(file)).output
    assert "cannot be read" in run("set", MODEL, *AMOUNTS, "--variants", str(tmp_path / "gone")).output
    later = run("set", MODEL, *AMOUNTS, "--from", (now() + timedelta(days=1)).isoformat())
    assert "had 1 variants; this one has none" in later.stderr


def test_a_preview_tells_the_difference_and_saves_nothing() -> None:
    one, two = books.organization("One"), books.organization("Two")
    listed = list_price()
    post(billed(one, listed), billed(one, listed), billed(two, listed, tokens=40), billed(two, listed, sandbox=True))
    assert (
        run("rule", "set", "--organization", "two", "--percent", "-50", "--from", ago(days=1), "--allow-past").exit_code
        == 0
    )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    result = run("preview", MODEL, "--input", "0.30", "--output", "1", "--day", today)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "organization\trequests\tchanged\tbefore_usd\tafter_usd\tdifference_usd",
        "one\t2\t2\t0.000003000\t0.000006000\t0.000003000",
        "two\t1\t0\t0.000006000\t0.000006000\t0.000000000",
        "TOTAL\t3\t2\t0.000009000\t0.000012000\t0.000003000",
    ]
    assert PriceVersion.objects.count() == 1
    assert "TOTAL\t0\t0" in run("preview", MODEL, *AMOUNTS).stdout  # yesterday


def test_rules_are_set_and_listed() -> None:
    books.organization("One")
    list_price()
    assert run("rule", "set", "--organization", "one", "--percent", "-12.5", "--note", "Deal").exit_code == 0
    fixed = run("rule", "set", "--organization", "one", "--model", MODEL, "--input", "1", "--output", "2.50")
    assert fixed.exit_code == 0, fixed.output
    assert fixed.stdout.strip() == PriceRule.objects.get(amounts__isnull=False).id
    lines = run("rule", "list", "--organization", "one").stdout
    assert "\tone\tevery model\t" in lines and "\t12.5 % discount\tDeal" in lines
    assert f"\tone\t{MODEL}\t" in lines and "\tinput=1 output=2.5" in lines


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either a change in percent or fixed prices"),
        (("--percent", "-10", "--input", "1", "--output", "1"), "either a change in percent or fixed prices"),
        (("--percent", "-100.1"), "percent"),
        (("--percent", "1001"), "percent"),
        (("--percent", "0.00001"), "percent"),
        (("--input", "1", "--output", "1"), "for one model"),
        (("--model", MODEL, "--input", "1"), "at least those of input and output"),
        (("--model", MODEL, "--input", "-1", "--output", "1"), "input"),
        (("--model", "nobody", "--percent", "1"), "there is no model 'nobody'"),
        (("--percent", "1", "--from", "2026-01-01"), "the start lies in the past"),
    ],
)
def test_rules_that_make_no_sense_are_refused(arguments: tuple[str, ...], words: str) -> None:
    books.organization("One")
    list_price()
    result = run("rule", "set", "--organization", "one", *arguments)
    assert result.exit_code != 0
    assert words in str(result.exception)
    assert PriceRule.objects.count() == 0


def test_rerate_shows_first_and_corrects_when_told_to() -> None:
    owner = books.organization("One")
    post(billed(owner, list_price()))
    corrected("0.10")
    window = ("--model", MODEL, "--from", ago(hours=1), "--to", (now() + timedelta(hours=1)).isoformat())
    shown = rerate(*window)
    assert shown.stdout.splitlines()[1] == "one\t1\t1\t0.000001500\t0.000001000\t-0.000000500"
    assert "Nothing was changed" in shown.stderr
    assert isinstance(rerate(*window, "--apply").exception, InvalidInput)
    assert (balance_nanos(owner.id), Rerating.objects.count()) == (-1_500, 0)
    done = rerate(*window, "--apply", "--reason", "Typo")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1:] == ["one\t1\t-0.000000500", "TOTAL\t1\t-0.000000500"]
    assert balance_nanos(owner.id) == -1_000
    assert rerate(*window, "--apply", "--reason", "Typo").stdout == ""
    assert Rerating.objects.count() == 1


def test_a_start_that_is_not_given_is_a_whole_second_and_what_is_printed_can_be_typed_in() -> None:
    books.organization("One")
    list_price()
    assert run("set", MODEL, *AMOUNTS).exit_code == 0
    assert run("rule", "set", "--organization", "one", "--percent", "-10").exit_code == 0
    assert PriceVersion.objects.order_by("-pk")[0].starts_at.microsecond == 0
    assert PriceRule.objects.get().starts_at.microsecond == 0
    start = "2026-11-01T10:00:00.900000Z"
    assert run("set", MODEL, *AMOUNTS, "--from", start, "--allow-past").exit_code == 0
    assert f"\t{start}\t" in run("list", MODEL).stdout


def test_a_start_in_the_past_that_a_later_version_cuts_short_is_told() -> None:
    books.organization("One")
    list_price()
    old, new = "2026-11-01T10:00:00Z", "2026-11-01T10:00:00.900000Z"
    assert "warning" not in run("set", MODEL, *AMOUNTS, "--from", new, "--allow-past").stderr
    told = run("set", MODEL, *AMOUNTS, "--from", old, "--allow-past")
    assert told.exit_code == 0
    assert f"warning: this version counts from {old} to {new} only" in told.stderr
    rule = ("rule", "set", "--organization", "one", "--percent", "-10", "--allow-past", "--from")
    assert "warning" not in run(*rule, new).stderr
    assert f"warning: this rule counts from {old} to {new} only" in run(*rule, old).stderr


def test_a_re_rating_with_nothing_to_correct_says_so_and_leaves_nothing() -> None:
    owner = books.organization("One")
    post(billed(owner, list_price()))
    window = ("--model", MODEL, "--from", ago(hours=1), "--to", (now() + timedelta(hours=1)).isoformat())
    done = rerate(*window, "--apply", "--reason", "Typo")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "Nothing to correct" in done.stderr
    assert Rerating.objects.count() == 0


def test_what_the_hold_leaves_out_is_told() -> None:
    owner = books.organization("One")
    price = list_price()
    post(billed(owner, price, hold=1_600), billed(owner, price, hold=1_500))
    corrected("0.30")
    window = ("--model", MODEL, "--from", ago(hours=1), "--to", (now() + timedelta(hours=1)).isoformat())
    note = "note: 2 requests cost no more than was held for them: 0.000002900 USD are not charged"
    assert note in rerate(*window).stderr
    assert note in rerate(*window, "--apply", "--reason", "Typo").stderr
    again = rerate(*window, "--apply", "--reason", "Typo").stderr
    assert "Nothing to correct" in again and note in again
