"""Price versions: added with clear rules, never changed, never deleted."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import read_version
from tests.console.cast import Rows, add_price, price_fields

ADD = "/console/catalog/priceversion/add/"
LIST = "/console/catalog/priceversion/"


def errors_of(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def test_without_a_start_the_version_is_in_force_from_now(console: Client, operator: User, rows: Rows) -> None:
    before = timezone.now().replace(microsecond=0)
    answer = console.post(ADD, price_fields(rows.model, note="Cheaper", reasoning="0.9"), follow=True)
    version = PriceVersion.objects.order_by("-pk")[0]
    assert before <= version.starts_at <= timezone.now()
    assert (version.input, version.output, version.reasoning) == (Decimal("0.2"), Decimal("0.8"), Decimal("0.9"))
    assert (version.cache_read, version.cache_write) == (None, None)
    assert version.created_by == operator.email
    assert "is in force now" in answer.content.decode()


def test_a_future_start_is_announced(console: Client, rows: Rows) -> None:
    start = datetime(2099, 1, 1, 12, 30, tzinfo=UTC)
    answer = console.post(ADD, price_fields(rows.model, starts_at_0="2099-01-01", starts_at_1="12:30:00"), follow=True)
    assert PriceVersion.objects.get(starts_at=start).input == Decimal("0.2")
    page = answer.content.decode()
    assert "starts at 2099-01-01 12:30:00 UTC" in page
    assert "Announced" in page


def test_a_start_in_the_past_is_refused_because_those_requests_are_rated(console: Client, rows: Rows) -> None:
    long_ago = timezone.now() - timedelta(minutes=6)
    fields = price_fields(rows.model, starts_at_0=f"{long_ago:%Y-%m-%d}", starts_at_1=f"{long_ago:%H:%M:%S}")
    errors = errors_of(console.post(ADD, fields))
    assert "cannot start in the past" in errors["starts_at"][0]
    assert PriceVersion.objects.count() == 1


def test_a_start_of_a_moment_ago_means_now(console: Client, rows: Rows) -> None:
    before = timezone.now().replace(microsecond=0)
    just_now = before - timedelta(minutes=2)
    fields = price_fields(rows.model, starts_at_0=f"{just_now:%Y-%m-%d}", starts_at_1=f"{just_now:%H:%M:%S}")
    console.post(ADD, fields)
    assert PriceVersion.objects.order_by("-pk")[0].starts_at >= before


def test_two_versions_cannot_start_at_the_same_moment(console: Client, rows: Rows) -> None:
    add_price(rows.model, starts_at=datetime(2099, 1, 1, tzinfo=UTC))
    fields = price_fields(rows.model, starts_at_0="2099-01-01", starts_at_1="00:00:00")
    errors = errors_of(console.post(ADD, fields))
    assert "has a version that starts at 2099-01-01 00:00:00 UTC already" in errors["starts_at"][0]
    assert PriceVersion.objects.count() == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("input", "-1"), ("input", ""), ("output", "1.0000000001"), ("cache_read", "NaN"), ("output", "1e30")],
)
def test_impossible_prices_are_refused(console: Client, rows: Rows, field: str, value: str) -> None:
    errors = errors_of(console.post(ADD, price_fields(rows.model, **{field: value})))
    assert list(errors) == [field]
    assert PriceVersion.objects.count() == 1


def test_the_button_fills_in_the_numbers_of_a_version_and_leaves_the_start_to_now(console: Client, rows: Rows) -> None:
    button = reverse("console:catalog_priceversion_new_version", args=[rows.price.pk])
    assert button in console.get(reverse("console:catalog_priceversion_change", args=[rows.price.pk])).content.decode()
    form = console.get(button, follow=True).context["adminform"].form
    assert form.initial["model"] == rows.model.pk
    assert Decimal(form.initial["input"]) == rows.price.input
    assert Decimal(form.initial["output"]) == rows.price.output
    assert Decimal(form.initial["cache_read"]) == Decimal("0.075")
    assert "cache_write" not in form.initial
    assert form["starts_at"].value() is None


def test_a_new_price_of_a_model_starts_from_the_one_in_force(console: Client, rows: Rows) -> None:
    add_price(rows.model, input=Decimal(7), starts_at=timezone.now() - timedelta(days=1))
    add_price(rows.model, input=Decimal(9), starts_at=timezone.now() + timedelta(days=1))
    button = reverse("console:catalog_model_new_price", args=["acme_2Fsmall-1"])
    form = console.get(button, follow=True).context["adminform"].form
    assert Decimal(form.initial["input"]) == 7


def test_the_list_says_which_version_applies(console: Client, rows: Rows) -> None:
    current = add_price(rows.model, starts_at=timezone.now() - timedelta(days=1))
    announced = add_price(rows.model, starts_at=timezone.now() + timedelta(days=1))
    found = console.get(LIST).context["cl"].queryset
    states = {version.pk: version.state_name for version in found}
    assert states == {rows.price.pk: "Past", current.pk: "In force", announced.pk: "Announced"}
    filtered = console.get(LIST, {"state": "Announced"}).context["cl"].queryset
    assert [version.pk for version in filtered] == [announced.pk]


def test_gateways_are_told_once_the_version_is_stored(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    number = read_version()
    with django_capture_on_commit_callbacks(execute=True):
        console.post(ADD, price_fields(rows.model))
    assert announcements() == ["catalog"]
    assert read_version() > number


@pytest.mark.parametrize("page", ["change", "delete"])
def test_no_page_changes_or_deletes_a_version(console: Client, rows: Rows, page: str) -> None:
    url = reverse(f"console:catalog_priceversion_{page}", args=[rows.price.pk])
    answer = console.post(url, {**price_fields(rows.model), "post": "yes"})
    assert answer.status_code == 403
    rows.price.refresh_from_db()
    assert rows.price.input == Decimal("0.15")


def test_the_model_page_cannot_smuggle_a_price_in(console: Client, rows: Rows) -> None:
    page = reverse("console:catalog_model_change", args=["acme_2Fsmall-1"])
    assert "prices-0-input" not in console.get(page).content.decode()
    assert not console.get(page).context["has_delete_permission"]


def test_the_database_refuses_to_change_a_version(rows: Rows) -> None:
    with pytest.raises(IntegrityError, match="never edited or deleted"), transaction.atomic():
        PriceVersion.objects.filter(pk=rows.price.pk).update(input=Decimal(1))


def test_the_database_refuses_to_delete_a_version(rows: Rows) -> None:
    with pytest.raises(IntegrityError, match="never edited or deleted"), transaction.atomic():
        rows.price.delete()


VARIANTS = '- {min_input_tokens: 200001, input: "0.40", output: "1.60"}\n- {service_tier: flex, input: "0.10"}\n'


def test_media_flat_parts_and_variants_are_stored_and_shown(console: Client, rows: Rows) -> None:
    fields = {"audio_input": "32", "per_request": "0.01", "variants": VARIANTS}
    console.post(ADD, price_fields(rows.model, **fields))
    version = PriceVersion.objects.order_by("-pk")[0]
    assert (version.audio_input, version.per_request, version.audio_output) == (Decimal(32), Decimal("0.01"), None)
    assert version.variants == [
        {"min_input_tokens": 200001, "input": "0.4", "output": "1.6"},
        {"service_tier": "flex", "input": "0.1"},
    ]
    shown = console.get(reverse("console:catalog_priceversion_change", args=[version.pk])).content.decode()
    assert "from 200,001 input tokens: input $0.40, output $1.60<br>flex: input $0.10" in shown
    assert "$32.00" in shown and "as output" in shown


def test_the_button_fills_in_variants_too(console: Client, rows: Rows) -> None:
    version = add_price(rows.model, variants=[{"service_tier": "flex", "input": "0.1"}], per_image=Decimal("0.002"))
    button = reverse("console:catalog_priceversion_new_version", args=[version.pk])
    form = console.get(button, follow=True).context["adminform"].form
    assert form.initial["variants"] == '- {service_tier: flex, input: "0.10"}\n'
    assert Decimal(form.initial["per_image"]) == Decimal("0.002")


@pytest.mark.parametrize(
    ("variants", "problem"),
    [
        ("nonsense", 'Line 1: variants: must be a list; got "nonsense"'),
        ("- {input: 1}", "Line 1: variants[0]: has no condition"),
        (VARIANTS + "- {service_tier: flex, input: 2}", "Line 3: variants[2]: can never apply: variant 2 fits"),
        ("- {min_input_tokens: 5, inptu: 1}", 'unknown key; did you mean "input"?'),
        ("- [", "Line 2: is not valid YAML"),
    ],
)
def test_variants_that_make_no_sense_are_refused_with_their_line(
    console: Client, rows: Rows, variants: str, problem: str
) -> None:
    errors = errors_of(console.post(ADD, price_fields(rows.model, variants=variants)))
    assert list(errors) == ["variants"]
    assert problem in errors["variants"][0]
    assert PriceVersion.objects.count() == 1
