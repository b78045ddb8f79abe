"""Usage in the portal: exact figures, pages by key, filters, receipts and the CSV file."""

import csv
import html
import io
import json
import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from msgspec.structs import replace

from apps.accounts.models import Project
from apps.billing.pricing.loading import book_rule
from apps.billing.pricing.records import Window
from apps.billing.pricing.rerating import rerate
from apps.billing.rating import cost_nanos
from apps.catalog.models import PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.core.ids import new_id
from apps.keys.issuing import create_key
from apps.usage.contracts import AttemptMade, Outcome, TokenCounts
from apps.usage.journal import Journal
from apps.usage.models import UsageRecord
from tests.billing.pricing.traffic import rule
from tests.portal.conftest import Cast
from tests.portal.records import closed, offered_model, store

URL = "/o/acme/usage/"
ONE = TokenCounts(input=1)


def ids_on(client: Client, url: str) -> list[str]:
    return [record.request_id for record, _ in client.get(url).context["rows"]]


def test_costs_are_exact_to_the_nano_dollar(owner: Client, request_id: str) -> None:
    # 100 x 0.1234567 + 7 x 0.075 + 3 x 0.6 = 14.67067 per million: 14 670.67 nano-dollars, rounded once
    assert UsageRecord.objects.get().cost_nanos == 14_671
    page = owner.get(URL).content.decode()
    assert "$0.000014671" in page
    detail = owner.get(f"{URL}{request_id}/").content.decode()
    assert "$0.000012345670" not in detail
    for exact in ("$0.00001234567", "$0.000000525", "$0.000001800", "$0.00001467067", "$0.000014671"):
        assert f">{exact}<" in detail


def test_the_receipt_names_bucket_price_and_version(owner: Client, request_id: str, price: PriceVersion) -> None:
    context = owner.get(f"{URL}{request_id}/").context
    lines = {label: (line.quantity, line.unit_nanos) for label, line in context["lines"]}
    assert context["receipt"].price.version_id == price.pk
    assert lines == {
        "Input": (100, 123_456_700),
        "Input read from the prompt cache": (7, 75_000_000),
        "Output": (3, 600_000_000),
    }


def test_the_receipt_shows_the_rule_of_the_price_book_and_what_was_corrected(
    cast: Cast, owner: Client, price: PriceVersion
) -> None:
    since = timezone.now() - timedelta(minutes=5)
    own = rule(cast.organization, "-10", model_id=None)
    listed = price_from_version(price)
    entry = closed(cast.key, price, at=timezone.now(), tokens=TokenCounts(input=100))
    paid = book_rule(own).applied_to(listed)
    entry = replace(
        entry,
        opened=replace(entry.opened, price=paid, hold_nanos=None),
        cost_nanos=cost_nanos(entry.tokens, paid),
        overage_nanos=0,
    )
    [request_id] = store([entry])
    rule(cast.organization, "-50", model_id=None, starts_at=since)
    window = Window("swift-1", since, timezone.now() + timedelta(minutes=5))
    rerate(window, reason="A better contract", actor="test")
    page = owner.get(f"/o/acme/usage/{request_id}/").content.decode()
    for words in ("10 % discount", "A better contract", "Cost after corrections"):
        assert words in page


def test_a_request_that_is_still_in_the_journal_has_its_page_already(
    cast: Cast, owner: Client, price: PriceVersion, tmp_path: Path, settings: Any
) -> None:
    settings.JOURNAL_DIR = tmp_path
    end = closed(cast.key, price, at=timezone.now(), tokens=ONE)
    journal = Journal(tmp_path, max_bytes=1 << 20)
    journal.open_request(end.opened)
    url = f"{URL}{end.opened.request_id}/"
    assert owner.get(url).status_code == 404
    journal.close_request(end)
    assert owner.get(url).status_code == 200
    journal.close()


def test_test_traffic_is_shown_apart_and_never_summed_with_live_traffic(
    cast: Cast, owner: Client, price: PriceVersion
) -> None:
    test_key = create_key(cast.project, name="Trying out", sandbox=True).key
    now = timezone.now()
    test = closed(test_key, price, at=now, tokens=TokenCounts(input=5))
    test = replace(test, opened=replace(test.opened, sandbox=True))
    live_id, test_id = store([closed(cast.key, price, at=now, tokens=ONE), test])
    live, sandbox = owner.get(URL), owner.get(f"{URL}?traffic=sandbox")
    assert [record.request_id for record, _ in live.context["rows"]] == [live_id]
    assert [record.request_id for record, _ in sandbox.context["rows"]] == [test_id]
    assert (live.context["total"].input_tokens, sandbox.context["total"].input_tokens) == (1, 5)
    assert (set(live.context["keys"]), set(sandbox.context["keys"])) == ({cast.key.id}, {test_key.id})
    for query, only in (("", live_id), ("?traffic=sandbox", test_id)):
        lines = b"".join(owner.get(f"{URL}export.csv{query}")).decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["request_id", only]
    assert owner.get("/o/acme/").context["today"].requests == 1
    detail = owner.get(f"{URL}{test_id}/").content.decode()
    assert "Charged: test traffic costs nobody anything" in detail
    assert "Sandbox" not in owner.get(f"{URL}{live_id}/").content.decode()


def test_all_attempts_are_shown_with_their_models_and_who_paid(cast: Cast, owner: Client, price: PriceVersion) -> None:
    end = closed(cast.key, price, at=timezone.now(), tokens=ONE)
    failed = AttemptMade("slow-1", "upstream-house", 0, 1_200, Outcome.FAILED, 503, "upstream_overloaded")
    last = AttemptMade("swift-1", "upstream-house", 1_201, 80, Outcome.COMPLETED, 200, paid_by="customer")
    [request_id] = store([replace(end, attempts=(failed, last))])
    page = owner.get(f"{URL}{request_id}/")
    [first, second] = page.context["receipt"].attempts
    assert (first.model, first.paid_by, first.cost_nanos) == ("slow-1", "operator", 0)
    assert (second.model, second.paid_by, second.cost_nanos) == ("swift-1", "customer", end.cost_nanos)
    text = page.content.decode()
    assert "Attempt 2" in text and "upstream_overloaded" in text and "Nothing for you to pay" in text
    assert "upstream-house" not in text


def test_nothing_of_the_upstream_is_shown(owner: Client, request_id: str) -> None:
    for url in (URL, f"{URL}{request_id}/", f"{URL}export.csv"):
        response = owner.get(url)
        body = b"".join(response) if response.streaming else response.content
        assert b"upstream-house" not in body
        assert b"hidden-" not in body


def test_an_estimated_request_says_so_and_why(cast: Cast, owner: Client, price: PriceVersion) -> None:
    [request_id] = store([closed(cast.key, price, at=timezone.now(), tokens=ONE, outcome=Outcome.CANCELLED)])
    assert "These tokens are estimated." in owner.get(f"{URL}{request_id}/").content.decode()
    assert owner.get(URL).context["total"].estimated_requests == 1


def test_pages_hold_every_request_once_newest_first(cast: Cast, owner: Client, price: PriceVersion) -> None:
    now = timezone.now()
    moments = [now - timedelta(hours=number) for number in range(120)]
    stored = store(closed(cast.key, price, at=moment, tokens=ONE) for moment in moments)
    seen: list[str] = []
    url = f"{URL}?range=30d"
    while url:
        response = owner.get(url)
        seen += [record.request_id for record, _ in response.context["rows"]]
        url = URL + response.context["older"] if response.context["older"] else ""
    assert seen == sorted(stored, reverse=True)


def test_a_request_that_arrives_meanwhile_moves_no_page(cast: Cast, owner: Client, price: PriceVersion) -> None:
    now = timezone.now()
    store(closed(cast.key, price, at=now - timedelta(minutes=number), tokens=ONE) for number in range(1, 61))
    older = owner.get(f"{URL}?range=30d").context["older"]
    before = ids_on(owner, URL + older)
    store([closed(cast.key, price, at=now, tokens=ONE)])
    assert ids_on(owner, URL + older) == before


@pytest.mark.parametrize("nonsense", ["x", "req_", "req_" + "f" * 32, "'; drop table", "key_" + "0" * 32])
def test_a_page_that_is_no_request_id_is_refused_or_empty(nonsense: str, owner: Client) -> None:
    assert owner.get(URL, {"before": nonsense}).status_code in (200, 404)


@pytest.mark.parametrize(
    ("wanted", "newest_age", "older_age"),
    [
        ("24h", timedelta(hours=22), timedelta(hours=26)),
        ("7d", timedelta(days=5), timedelta(days=8)),
        ("30d", timedelta(days=28), timedelta(days=31)),
        ("90d", timedelta(days=88), timedelta(days=91)),
    ],
)
def test_a_range_holds_what_lies_in_it(
    cast: Cast, owner: Client, price: PriceVersion, wanted: str, newest_age: timedelta, older_age: timedelta
) -> None:
    now = timezone.now()
    inside, _ = store(closed(cast.key, price, at=now - age, tokens=ONE) for age in (newest_age, older_age))
    response = owner.get(URL, {"range": wanted})
    assert [record.request_id for record, _ in response.context["rows"]] == [inside]
    assert response.context["total"].requests == 1


def test_filters_narrow_table_sums_and_chart_alike(cast: Cast, owner: Client, price: PriceVersion) -> None:
    other_project = Project.objects.create(organization=cast.organization, name="Other", slug="other")
    other_key = create_key(other_project, name="Other key").key
    other_price = offered_model("slow-1", starts_at=price.starts_at, input="1", output="2")
    now = timezone.now()
    mine, other = store(
        [closed(cast.key, price, at=now, tokens=ONE), closed(other_key, other_price, at=now, tokens=ONE)]
    )
    for query, expected in [
        ({"model": "swift-1"}, [mine]),
        ({"key": other_key.id}, [other]),
        ({"project": other_project.id}, [other]),
        ({"project": other_project.id, "model": "swift-1"}, []),
        ({}, [other, mine]),
    ]:
        response = owner.get(URL, query)
        assert [record.request_id for record, _ in response.context["rows"]] == expected
        assert response.context["total"].requests == len(expected)
        assert sum(response.context["chart"]["requests"]) == len(expected)


def test_other_organizations_never_appear(cast: Cast, owner: Client, price: PriceVersion) -> None:
    [foreign] = store([closed(cast.stranger_key, price, at=timezone.now(), tokens=ONE)])
    for query in ({}, {"key": cast.stranger_key.id}, {"project": cast.stranger_key.project_id}, {"model": "swift-1"}):
        response = owner.get(URL, query)
        assert response.context["rows"] == []
        assert response.context["total"].requests == 0
        assert cast.stranger_key.name not in response.content.decode()
    assert owner.get(f"{URL}{foreign}/").status_code == 404
    assert foreign.encode() not in b"".join(owner.get(f"{URL}export.csv"))


def test_an_unknown_request_is_a_404(owner: Client) -> None:
    assert owner.get(f"{URL}{new_id('req')}/").status_code == 404
    assert owner.get(f"{URL}req_{'f' * 32}/").status_code == 404
    assert owner.get(f"{URL}not-an-id/").status_code == 404


def test_the_chart_carries_the_numbers_of_the_table(owner: Client, request_id: str) -> None:
    page = owner.get(URL).content.decode()
    found = re.search(r'data-figures="([^"]*cost[^"]*)"', page)
    assert found is not None
    figures = json.loads(html.unescape(found.group(1)))
    assert len(figures["labels"]) == len(figures["cost"]) == len(figures["requests"]) == 30
    assert figures["cost_text"][-1] == "$0.000014671"
    assert figures["requests"][-1] == 1


def test_the_csv_has_one_exact_row_a_request(owner: Client, request_id: str) -> None:
    response = owner.get(f"{URL}export.csv")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="usage-acme-' in response["Content-Disposition"]
    [row] = csv.DictReader(io.StringIO(b"".join(response).decode()))
    assert row["request_id"] == request_id
    assert Decimal(row["cost_usd"]) == Decimal("0.000014671")
    assert (row["input_tokens"], row["cache_read_tokens"], row["output_tokens"]) == ("100", "7", "3")


def test_an_empty_csv_still_has_its_header(owner: Client) -> None:
    lines = b"".join(owner.get(f"{URL}export.csv")).decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("request_id,created_at,")
