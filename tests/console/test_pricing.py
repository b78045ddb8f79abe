"""Price books, previews and re-ratings in the console: nothing is changed before it was seen, and nothing twice."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import User
from apps.billing.ledger import balance_nanos
from apps.billing.models import PriceRule, Rerating
from apps.billing.pricing.rerating import finish_all
from apps.catalog.models import PriceVersion
from tests.console.cast import Rows, add_price, price_fields
from tests.console.conftest import made_rows

RULES = "/console/billing/pricerule/"
RERATINGS = "/console/billing/rerating/"
PREVIEW = "/console/catalog/priceversion/preview/"
AMOUNTS = (
    "input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning", "audio_input", "image_input",
    "audio_output", "image_output", "per_request", "per_image",
)  # fmt: skip


@pytest.fixture
def rows(customer: User) -> Rows:
    """Made anew: one of these tests commits."""
    return made_rows(customer)


def rule_fields(rows: Rows, **changes: str) -> dict[str, str]:
    usual = {"organization": rows.organization.pk, "model": rows.model.pk, "starts_at_0": "", "starts_at_1": ""}
    return {**usual, "percent": "", "note": "", **dict.fromkeys(AMOUNTS, ""), **changes}


def window_fields(rows: Rows, **changes: str) -> dict[str, str]:
    start, end = timezone.now() - timedelta(hours=1), timezone.now() + timedelta(hours=1)
    moments = {
        f"{name}_{part}": f"{moment:{form}}"
        for name, moment in (("starts_at", start), ("ends_at", end))
        for part, form in ((0, "%Y-%m-%d"), (1, "%H:%M:%S"))
    }
    return {"model": rows.model.pk, "reason": "Typo in the price", **moments, **changes}


def errors_of(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


@pytest.mark.django_db(transaction=True)
def test_a_discount_is_saved_and_gateways_are_told(
    console: Client, operator: User, rows: Rows, announcements: Any
) -> None:
    announcements()
    answer = console.post(f"{RULES}add/", rule_fields(rows, percent="-12.5", note="Deal 7"), follow=True)
    made = PriceRule.objects.order_by("-id")[0]
    assert (made.percent, made.amounts, made.note, made.created_by) == (-12.5, None, "Deal 7", operator.email)
    assert announcements() == ["catalog"]
    assert "12.5 % discount" in answer.content.decode()


def test_a_fixed_price_is_saved_as_decimals(console: Client, rows: Rows) -> None:
    console.post(f"{RULES}add/", rule_fields(rows, input="1.10", output="2", per_request="0.01"))
    made = PriceRule.objects.order_by("-id")[0]
    assert made.amounts == {"input": "1.1", "output": "2", "per_request": "0.01"}
    page = console.get(f"{RULES}{made.pk.replace('_', '_5F')}/change/").content.decode()
    assert "input $1.10, output $2.00, per request $0.01" in page


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({}, "__all__", "either a change in percent or fixed prices"),
        ({"percent": "-10", "input": "1", "output": "1"}, "__all__", "either a change in percent or fixed prices"),
        ({"input": "1"}, "__all__", "at least those of input and output"),
        ({"model": "", "input": "1", "output": "1"}, "__all__", "for one model"),
        ({"percent": "-101"}, "percent", "greater than or equal to -100"),
        ({"input": "-1", "output": "1"}, "input", "greater than or equal to 0"),
        ({"percent": "5", "starts_at_0": "2026-01-01", "starts_at_1": "00:00:00"}, "starts_at", "in the past"),
    ],
)
def test_rules_that_make_no_sense_are_refused(
    console: Client, rows: Rows, changes: dict[str, str], field: str, words: str
) -> None:
    errors = errors_of(console.post(f"{RULES}add/", rule_fields(rows, **changes)))
    assert words in " ".join(errors[field])
    assert PriceRule.objects.count() == 1


def test_the_same_start_twice_is_refused(console: Client, rows: Rows) -> None:
    fields = rule_fields(rows, percent="5", starts_at_0="2099-01-01", starts_at_1="00:00:00")
    assert console.post(f"{RULES}add/", fields).status_code == 302
    assert "exists" in " ".join(errors_of(console.post(f"{RULES}add/", fields))["starts_at"])


def test_a_preview_shows_the_difference_and_saves_nothing(console: Client, rows: Rows, monkeypatch: Any) -> None:
    monkeypatch.setattr("apps.console.prices.yesterday", lambda: timezone.now().date())
    page = console.post(PREVIEW, price_fields(rows.model)).content.decode()
    # 1,000 input at 0.20 and 20 output at 0.80; the price book of the cast begins after the record.
    assert "$0.000162000" in page and "$0.000216000" in page and "$0.000054000" in page
    assert PriceVersion.objects.count() == 1
    assert "Enter a number" in console.post(PREVIEW, price_fields(rows.model, input="x")).content.decode()
    assert console.get(PREVIEW).status_code == 405
    assert "Preview on yesterday" in console.get("/console/catalog/priceversion/add/").content.decode()


def test_a_re_rating_is_seen_then_begun_and_done_by_the_worker(console: Client, operator: User, rows: Rows) -> None:
    add_price(rows.model, input="0.10", output="0.60", starts_at=timezone.now() - timedelta(days=5))
    before = balance_nanos(rows.organization.id)
    fields = window_fields(rows)
    unseen = console.post(f"{RERATINGS}add/", {**fields, "_apply": ""})
    assert "-$0.000050000" in unseen.content.decode()
    assert Rerating.objects.count() == 1
    seen = unseen.context["seen"]
    other = {**fields, "seen": seen, "_apply": "", "ends_at_0": "2099-01-01"}
    assert console.post(f"{RERATINGS}add/", other).status_code == 200
    assert Rerating.objects.count() == 1

    assert console.post(f"{RERATINGS}add/", {**fields, "seen": seen, "_apply": ""}).status_code == 302
    begun = Rerating.objects.order_by("-id")[0]
    assert (begun.status, begun.created_by, begun.reason) == ("applying", operator.email, "Typo in the price")
    assert balance_nanos(rows.organization.id) == before
    assert finish_all() == 1
    assert balance_nanos(rows.organization.id) == before + 50_000
    page = console.get(f"{RERATINGS}{begun.pk.replace('_', '_5F')}/change/").content.decode()
    assert "acme: 1 requests, -$0.000050000" in page
    again = console.post(f"{RERATINGS}add/", fields).content.decode()
    assert "Correct it" not in again


def test_windows_that_make_no_sense_are_refused(console: Client, rows: Rows) -> None:
    fields = window_fields(rows)
    swapped = {**fields, "ends_at_0": "2020-01-01"}
    assert "The window is empty" in console.post(f"{RERATINGS}add/", swapped).content.decode()
    assert "This field is required" in console.post(f"{RERATINGS}add/", {**fields, "reason": ""}).content.decode()
    nothing = {**fields, "starts_at_0": "2020-01-01", "ends_at_0": "2020-01-02"}
    assert "No live request" in console.post(f"{RERATINGS}add/", nothing).content.decode()
