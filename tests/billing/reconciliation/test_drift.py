"""Vendors' figures beside ours: imported once, replaced by newer ones, and an alert where they differ too much."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from apps.billing.models import Alert, VendorCost, VendorReport
from apps.billing.reconciliation.drift import ALL_MODELS, Drift, read_drift
from apps.billing.reconciliation.vendor_costs import import_report
from apps.catalog.contracts import Price
from apps.catalog.models import Provider
from apps.core.errors import Conflict, NotFound
from apps.core.ids import new_id
from apps.usage.contracts import TokenCounts
from apps.usage.recording import record
from tests import factories

pytestmark = pytest.mark.django_db
YESTERDAY = datetime.now(UTC).date() - timedelta(days=1)


@pytest.fixture
def provider() -> str:
    return str(Provider.objects.create(id="openai", name="OpenAI", base_url="https://api.openai.com/v1").pk)


@pytest.fixture
def price() -> Price:
    return factories.stored_price()


def use(price: Price, *, day: date = YESTERDAY, tokens: int = 10_000, cost: int = 20_000_000, **changes: Any) -> None:
    """One request that a provider served on this day."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    request_id = f"req_{int(noon.timestamp() * 1000):012x}{new_id('req')[-20:]}"
    names = {"provider": "openai", "upstream_model": "gpt-4o", "price": price}
    opened = factories.opened(request_id=request_id, **(names | changes))
    record([factories.closed(opened, tokens=TokenCounts(input=tokens), cost_nanos=cost)])


def costs(value: float, *, day: date = YESTERDAY, line_item: str | None = "gpt-4o-2024-08-06, input") -> bytes:
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
    result = {"amount": {"value": value, "currency": "usd"}, "line_item": line_item}
    return json.dumps({"data": [{"start_time": start, "end_time": start + 86_400, "results": [result]}]}).encode()


def usage(tokens: int, *, day: date = YESTERDAY, model: str = "gpt-4o") -> bytes:
    return (
        f"usage_date_utc,model_version,usage_input_tokens_no_cache,usage_output_tokens\n{day},{model},{tokens},0\n"
    ).encode()


def take(content: bytes, provider: str = "openai") -> VendorReport:
    return import_report(provider, content, name="bill.json", actor="ada")[0]


def drift(day: date = YESTERDAY) -> list[Drift]:
    return read_drift("openai", day, day)


def test_both_sides_meet_by_day_and_model(provider: str, price: Price) -> None:
    use(price)
    use(price)
    use(price, provider="elsewhere")
    use(price, sandbox=True)
    use(price, upstream_model="gpt-4o-mini")
    take(costs(0.03))
    take(usage(19_000))
    found = {row.model: row for row in drift()}
    assert sorted(found) == ["gpt-4o", "gpt-4o-mini"]
    row = found["gpt-4o"]
    assert (row.requests, row.our_tokens, row.vendor_tokens, row.token_drift) == (2, 20_000, 19_000, -1_000)
    assert (row.charged_nanos, row.vendor_nanos, row.margin_nanos) == (40_000_000, 30_000_000, 10_000_000)
    assert found["gpt-4o-mini"].vendor_tokens is None


def test_a_bill_without_models_is_compared_with_the_whole_day(provider: str, price: Price) -> None:
    use(price)
    use(price, upstream_model="other")
    take(costs(0.03, line_item=None))
    found = {row.model: row for row in drift()}
    assert (found[ALL_MODELS].charged_nanos, found[ALL_MODELS].vendor_nanos) == (40_000_000, 30_000_000)
    assert sorted(found) == [ALL_MODELS, "gpt-4o", "other"]


def test_the_same_file_twice_is_one_report(provider: str) -> None:
    first, again = (import_report(provider, costs(1), name="bill.json", actor="ada") for _ in range(2))
    assert (first[1], again[1]) == (True, False)
    assert first[0] == again[0]
    assert VendorCost.objects.get().cost_nanos == 1_000_000_000


def test_a_newer_file_replaces_what_an_older_one_said_and_repeats_nothing(provider: str) -> None:
    both = [json.loads(costs(1)), json.loads(costs(2, line_item="o3, output"))]
    take(json.dumps(both).encode())
    both[1] = json.loads(costs(5, line_item="o3, output"))
    both.append(json.loads(costs(7, line_item="o1, output")))
    report = take(json.dumps(both).encode())
    assert (report.new_rows, report.changed_rows, report.known_rows) == (1, 1, 1)
    assert sorted(VendorCost.objects.values_list("model", "cost_nanos")) == [
        ("gpt-4o-2024-08-06", 1_000_000_000), ("o1", 7_000_000_000), ("o3", 5_000_000_000),
    ]  # fmt: skip


def test_a_file_belongs_to_one_provider(provider: str) -> None:
    Provider.objects.create(id="other", name="Other", base_url="https://example.com/v1")
    take(costs(1))
    with pytest.raises(Conflict, match="openai already"):
        take(costs(1), "other")
    with pytest.raises(NotFound, match="nobody"):
        take(costs(1), "nobody")


def test_paying_more_than_is_charged_alerts_the_operator_once(provider: str, price: Price) -> None:
    use(price, cost=100_000_000)
    report = take(costs(0.2))
    take(costs(0.2))
    alert = Alert.objects.get()
    assert (alert.organization_id, alert.kind) == (None, "vendor.drift")
    assert alert.details == {"provider": "openai", "report": report.digest, "found": 1}
    assert "the vendor charges 0.200000000 USD, customers were charged 0.100000000 USD" in alert.text


def test_paying_for_what_nobody_asked_for_here_is_an_alert(provider: str) -> None:
    take(costs(3))
    assert "the vendor charges 3.000000000 USD, customers were charged 0.000000000 USD" in Alert.objects.get().text


def test_tokens_that_differ_are_an_alert_in_either_direction(provider: str, price: Price) -> None:
    for number, counted in enumerate((8_000, 12_000)):
        take(usage(counted, model="gpt-4o"))
        use(price) if number == 0 else None
    assert Alert.objects.count() == 2


@pytest.mark.parametrize(
    "content", [costs(0.021), usage(10_400), costs(0.001, line_item="o3, input"), usage(900, model="x")]
)
def test_what_is_near_enough_or_too_small_is_no_alert(provider: str, price: Price, content: bytes) -> None:
    use(price)
    take(content)
    assert not Alert.objects.exists()


def test_a_margin_is_no_alert(provider: str, price: Price) -> None:
    use(price, cost=10_000_000_000)
    take(costs(0.01))
    assert not Alert.objects.exists()


def test_today_is_not_over_and_so_no_alert(provider: str) -> None:
    take(costs(3, day=datetime.now(UTC).date()))
    assert not Alert.objects.exists()


def test_the_limit_is_a_setting(provider: str, price: Price, settings: Any) -> None:
    settings.VENDOR_DRIFT_PERCENT = 150
    use(price, cost=100_000_000)
    take(costs(0.2))
    assert not Alert.objects.exists()
