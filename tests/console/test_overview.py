"""The first page's numbers, checked against rollups that are known."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.models import Organization, User
from apps.catalog.models import Model, Provider, Route
from apps.console.overview import Readiness, read_overview, read_readiness
from tests.console.cast import Rows, add_rollup
from tests.console.conftest import made_rows

NOW = datetime(2026, 3, 15, 12, 34, 56, tzinfo=UTC)
THIS_HOUR = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.fixture
def rows(customer: User) -> Rows:
    """Made anew: one of these tests is about an installation without any."""
    return made_rows(customer)


def at(hours_ago: int) -> datetime:
    return THIS_HOUR - timedelta(hours=hours_ago)


def test_sums_of_the_last_day_today_and_the_day_before(rows: Rows) -> None:
    add_rollup(rows.key, hour=at(0))
    add_rollup(rows.key, hour=at(12), cost_nanos=5)  # midnight: still today
    add_rollup(rows.key, hour=at(13), cost_nanos=70)  # yesterday, within 24 hours
    add_rollup(rows.key, hour=at(23), cost_nanos=900)  # the first hour of the last 24
    add_rollup(rows.key, hour=at(24), requests=1, cost_nanos=11)  # the day before
    add_rollup(rows.key, hour=at(47), requests=2, cost_nanos=13)
    add_rollup(rows.key, hour=at(48), requests=1000)  # too old
    overview = read_overview(NOW)
    assert (overview.today.requests, overview.today.cost_nanos) == (20, 1_000_000_005)
    assert (overview.last_day.requests, overview.last_day.cost_nanos) == (40, 1_000_000_975)
    assert (overview.day_before.requests, overview.day_before.cost_nanos) == (3, 24)
    assert overview.last_day.tokens == 4 * 180


def test_models_and_providers_are_summed_over_keys_and_hours_dearest_first(rows: Rows) -> None:
    add_rollup(rows.key, hour=at(0), model="small", provider="east", cost_nanos=100)
    add_rollup(rows.key, hour=at(1), model="small", provider="west", cost_nanos=100)
    add_rollup(rows.key, hour=at(1), model="large", provider="west", cost_nanos=600)
    overview = read_overview(NOW)
    assert [(one.name, one.totals.cost_nanos, one.percent_of_spend) for one in overview.models] == [
        ("large", 600, 75),
        ("small", 200, 25),
    ]
    assert [(one.name, one.totals.requests) for one in overview.providers] == [("west", 20), ("east", 10)]


def test_failing_providers_come_worst_first(rows: Rows) -> None:
    add_rollup(rows.key, hour=at(0), provider="fine", requests=1000, failed_requests=49)
    add_rollup(rows.key, hour=at(0), provider="limping", requests=100, failed_requests=5)
    add_rollup(rows.key, hour=at(1), provider="broken", requests=4, failed_requests=4)
    add_rollup(rows.key, hour=at(30), provider="mended", requests=10, failed_requests=10)
    failing = read_overview(NOW).failing
    assert [(one.name, one.totals.failed_share) for one in failing] == [("broken", "100.0 %"), ("limping", "5.0 %")]


def test_charts_have_a_bar_for_each_of_the_last_24_hours(rows: Rows) -> None:
    add_rollup(rows.key, hour=at(0), requests=8, failed_requests=3, cost_nanos=1_500_000_000)
    add_rollup(rows.key, hour=at(23), requests=2, cost_nanos=250_000_000)
    add_rollup(rows.key, hour=at(24), requests=99)
    overview = read_overview(NOW)
    requests, spend = msgspec.json.decode(overview.requests_chart), msgspec.json.decode(overview.spend_chart)
    assert requests["labels"] == [f"{hour % 24:02d}:00" for hour in range(13, 37)]
    succeeded, failed = (dataset["data"] for dataset in requests["datasets"])
    assert succeeded == [2, *[0] * 22, 5]
    assert failed == [*[0] * 23, 3]
    assert spend["datasets"][0]["data"] == [0.25, *[0] * 22, 1.5]


def test_the_page_takes_four_queries_however_much_there_is(rows: Rows, django_assert_num_queries: Any) -> None:
    for hours_ago in range(48):
        for model in ("small", "large", "huge"):
            add_rollup(rows.key, hour=at(hours_ago), model=model)
    with django_assert_num_queries(4):
        overview = read_overview(NOW)
    assert overview.last_day.requests == 720


def test_newest_organizations_come_with_this_months_spend(rows: Rows) -> None:
    add_rollup(rows.key, hour=datetime(2026, 3, 1, tzinfo=UTC), cost_nanos=2_340_000_000)
    add_rollup(rows.key, hour=datetime(2026, 2, 28, 23, tzinfo=UTC), cost_nanos=50_000_000_000)
    late = Organization.objects.create(name="Late", slug="late")
    newest = read_overview(NOW).newest
    assert newest[0].id == late.pk
    spent = {one.id: one.spent for one in newest}
    assert (spent[late.pk], spent[rows.organization.pk]) == ("$0.00", "$2.34")


def test_what_is_on_offer_needs_price_route_and_credential(rows: Rows) -> None:
    now = timezone.now()
    assert read_readiness(now) == Readiness(models_on_offer=1, models=1, providers_ready=1, providers=1)
    without_price = Model.objects.create(id="new", name="New", vendor="V", context_length=1, max_output_tokens=1)
    Route.objects.create(model=without_price, provider=rows.provider, upstream_model="new")
    Provider.objects.create(id="bare", base_url="https://bare.example/v1", api_key_env="A_VARIABLE_NOBODY_SETS")
    assert read_readiness(now) == Readiness(models_on_offer=1, models=2, providers_ready=1, providers=2)
    assert read_readiness(now - timedelta(days=11)).models_on_offer == 0
    Route.objects.update(enabled=False)
    assert read_readiness(now).models_on_offer == 0


def test_the_page_shows_the_numbers(console: Client, rows: Rows) -> None:
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    add_rollup(
        rows.key, hour=hour, requests=12_345, failed_requests=6_000, cost_nanos=9_876_543_211, model="big<script>"
    )
    page = console.get("/console/").content.decode()
    assert "12,345" in page
    assert "$9.88" in page
    assert "$9.876543211" in page
    assert "48.6 %" in page
    assert "big&lt;script&gt;" in page
    assert "big<script>" not in page
    assert 'data-section="failing"' in page


def test_an_empty_installation_has_a_page_too(console: Client) -> None:
    page = console.get("/console/").content.decode()
    assert "No requests in the last 24 hours." in page
    assert "No organization yet." in page
    assert 'data-section="failing"' not in page
