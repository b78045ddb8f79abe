"""Reports: sums from the rollups, series without gaps, pages by request id, and never a row of somebody else."""

from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.organizations import create_organization, default_project
from apps.catalog.models import PriceVersion
from apps.core.errors import NotFound
from apps.core.ids import new_id
from apps.keys.issuing import create_key
from apps.keys.models import ApiKey
from apps.usage.contracts import Outcome, TokenCounts
from apps.usage.reports import (
    Narrowing,
    Span,
    Step,
    Sums,
    last_days,
    last_hours,
    last_used_hours,
    record_of,
    records_page,
    series,
    sums,
    sums_by,
    this_month,
)
from tests.portal.records import closed, offered_model, store

NOW = datetime(2026, 3, 15, 10, 30, tzinfo=UTC)
TOKENS = TokenCounts(input=10, cache_read=4, cache_write=3, output=2, reasoning=1)


@pytest.fixture
def key(db: None) -> ApiKey:
    return create_key(default_project(create_organization("Acme")), name="Key").key


@pytest.fixture
def price(db: None) -> PriceVersion:
    return offered_model("swift-1", starts_at=datetime(2026, 1, 1, tzinfo=UTC), input="1", output="2")


def test_spans_are_whole_hours_and_days() -> None:
    assert last_hours(24, NOW) == Span(
        datetime(2026, 3, 14, 11, tzinfo=UTC), datetime(2026, 3, 15, 11, tzinfo=UTC), Step.HOUR
    )
    assert last_days(7, NOW) == Span(datetime(2026, 3, 9, tzinfo=UTC), datetime(2026, 3, 16, tzinfo=UTC), Step.DAY)
    assert this_month(NOW) == Span(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 16, tzinfo=UTC), Step.DAY)


@given(
    st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis adds the zone
    st.integers(1, 100),
)
def test_a_span_has_as_many_steps_as_were_asked_for_and_ends_after_now(now: datetime, number: int) -> None:
    for span in (last_hours(number, now), last_days(number, now)):
        assert len(span.starts()) == number
        assert span.since <= now < span.until


def test_sums_equal_the_records(key: ApiKey, price: PriceVersion) -> None:
    store(
        [
            closed(key, price, at=NOW, tokens=TOKENS),
            closed(key, price, at=NOW - timedelta(hours=2), tokens=TOKENS, outcome=Outcome.CANCELLED),
            closed(key, price, at=NOW - timedelta(hours=3), tokens=TokenCounts(), outcome=Outcome.FAILED),
        ]
    )
    found = sums(key.organization_id, last_hours(24, NOW))
    assert found == Sums(
        requests=3,
        failed_requests=1,
        estimated_requests=1,
        input_tokens=20,
        cache_read_tokens=8,
        cache_write_tokens=6,
        output_tokens=4,
        reasoning_tokens=2,
        cost_nanos=2 * (10 + 4 + 3 + 2 * 2 + 1 * 2) * 1_000,
    )
    assert (found.tokens_in, found.tokens_out, found.tokens) == (34, 6, 40)
    assert all(type(value) is int for value in vars(found).values())


def test_nothing_sums_to_zero(key: ApiKey) -> None:
    assert sums(key.organization_id, last_days(30, NOW)) == Sums()


def test_a_series_has_no_gaps_and_puts_each_request_in_its_step(key: ApiKey, price: PriceVersion) -> None:
    midnight = datetime(2026, 3, 14, tzinfo=UTC)
    moments = [midnight - timedelta(milliseconds=1), midnight, midnight + timedelta(hours=23, minutes=59)]
    store(closed(key, price, at=moment, tokens=TOKENS) for moment in moments)
    points = series(key.organization_id, last_days(3, NOW))
    assert [(point.start.date(), point.sums.requests) for point in points] == [
        (date(2026, 3, 13), 1),
        (date(2026, 3, 14), 2),
        (date(2026, 3, 15), 0),
    ]
    hours = series(key.organization_id, last_hours(24, NOW))
    assert len(hours) == 24
    assert [point.start.hour for point in hours if point.sums.requests] == [23]


def test_sums_by_model_put_the_most_expensive_first(key: ApiKey, price: PriceVersion) -> None:
    dear = offered_model("dear-1", starts_at=price.starts_at, input="100", output="200")
    store([closed(key, price, at=NOW, tokens=TOKENS), closed(key, dear, at=NOW, tokens=TOKENS)])
    by_model = sums_by(key.organization_id, last_days(1, NOW), "model")
    assert list(by_model) == ["dear-1", "swift-1"]
    assert by_model["dear-1"].cost_nanos == 100 * by_model["swift-1"].cost_nanos
    assert list(sums_by(key.organization_id, last_days(1, NOW), "key_id")) == [key.id]
    only = sums_by(key.organization_id, last_days(1, NOW), "model", narrowing=Narrowing(model="dear-1"))
    assert list(only) == ["dear-1"]


def test_the_last_hour_of_each_key(key: ApiKey, price: PriceVersion) -> None:
    store(closed(key, price, at=NOW - timedelta(hours=age), tokens=TOKENS) for age in (1, 5))
    assert last_used_hours(key.organization_id, last_days(1, NOW)) == {key.id: datetime(2026, 3, 15, 9, tzinfo=UTC)}


def test_pages_join_into_the_whole_without_a_double(key: ApiKey, price: PriceVersion) -> None:
    moments = [NOW - timedelta(hours=7 * number) for number in range(25)]
    stored = store(closed(key, price, at=moment, tokens=TOKENS) for moment in [*moments, NOW])
    seen: list[str] = []
    before: str | None = None
    while True:
        page = records_page(key.organization_id, last_days(30, NOW), before=before, size=7)
        seen += [record.request_id for record in page.records]
        before = page.before
        if before is None:
            break
    assert seen == sorted(stored, reverse=True)


def test_a_full_last_page_offers_no_empty_one(key: ApiKey, price: PriceVersion) -> None:
    store(closed(key, price, at=NOW, tokens=TOKENS) for _ in range(4))
    page = records_page(key.organization_id, last_days(1, NOW), size=4)
    assert len(page.records) == 4
    assert page.before is None


def test_a_page_holds_only_its_span(key: ApiKey, price: PriceVersion) -> None:
    span = last_hours(24, NOW)
    edge = [span.since - timedelta(milliseconds=1), span.since, span.until - timedelta(milliseconds=1)]
    _, first, last = store(closed(key, price, at=moment, tokens=TOKENS) for moment in edge)
    assert [record.request_id for record in records_page(key.organization_id, span).records] == [last, first]


def test_a_page_reads_only_the_partitions_of_its_days(key: ApiKey, price: PriceVersion) -> None:
    store(closed(key, price, at=NOW - timedelta(days=age), tokens=TOKENS) for age in range(10))
    with CaptureQueriesContext(connection) as queries:
        records_page(key.organization_id, last_days(2, NOW))
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {queries.captured_queries[-1]['sql']}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "usage_record_20260314" in plan
    assert "usage_record_20260315" in plan
    assert "usage_record_20260313" not in plan
    assert "count(" not in plan.lower()


def test_before_must_be_a_request_id(key: ApiKey) -> None:
    with pytest.raises(ValueError, match="not an id of ours"):
        records_page(key.organization_id, last_days(1, NOW), before="'; drop table")


def test_one_record_is_found_by_its_id_in_its_own_organization_only(key: ApiKey, price: PriceVersion) -> None:
    [request_id] = store([closed(key, price, at=NOW, tokens=TOKENS)])
    assert record_of(key.organization_id, request_id).cost_nanos == 23_000
    other = create_organization("Other")
    for organization_id, wanted in [
        (other.id, request_id),
        (key.organization_id, new_id("req")),
        (key.organization_id, "nonsense"),
        (key.organization_id, "req_" + "f" * 32),
    ]:
        with pytest.raises(NotFound):
            record_of(organization_id, wanted)


def test_no_report_contains_another_organization(key: ApiKey, price: PriceVersion) -> None:
    store([closed(key, price, at=NOW, tokens=TOKENS)])
    other = create_organization("Other").id
    span = last_days(1, NOW)
    assert sums(other, span) == Sums()
    assert all(point.sums == Sums() for point in series(other, span))
    assert sums_by(other, span, "model") == {}
    assert last_used_hours(other, span) == {}
    assert records_page(other, span).records == []
