"""Usage records in the console: filtered, exact, read-only, never counted."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.accounts.organizations import create_organization, default_project
from apps.console.site import console_site
from apps.console.usage import UsageRecordAdmin
from apps.core.ids import new_id
from apps.keys.issuing import create_key
from apps.usage.models import UsageRecord
from tests.console.cast import Rows, add_record

LIST = "/console/usage/usagerecord/"


def found(response: Any) -> list[str]:
    assert response.status_code == 200
    return [record.request_id for record in response.context["cl"].result_list]


@pytest.fixture
def others(rows: Rows) -> dict[str, UsageRecord]:
    elsewhere = create_key(default_project(create_organization("Other")), name="Other").key
    yesterday = rows.record.day - timedelta(days=1)
    return {
        "failed": add_record(rows.key, rows.model, rows.price, status="failed"),
        "elsewhere": add_record(elsewhere, rows.model, rows.price),
        "yesterday": add_record(rows.key, rows.model, rows.price, day=yesterday),
    }


def test_the_newest_come_first_and_the_cost_is_exact(console: Client, rows: Rows, others: dict[str, Any]) -> None:
    answer = console.get(LIST)
    assert found(answer) == [others["elsewhere"].pk, others["failed"].pk, rows.record.pk, others["yesterday"].pk]
    assert "$0.000162000" in answer.content.decode()


def test_each_filter_finds_its_records(console: Client, rows: Rows, others: dict[str, Any]) -> None:
    day = f"{others['yesterday'].day:%Y-%m-%d}"
    assert found(console.get(LIST, {"day_from": day, "day_to": day})) == [others["yesterday"].pk]
    assert found(console.get(LIST, {"status__exact": "failed"})) == [others["failed"].pk]
    elsewhere = {"organization__id__exact": others["elsewhere"].organization_id}
    assert found(console.get(LIST, elsewhere)) == [others["elsewhere"].pk]
    assert len(found(console.get(LIST, {"model": rows.model.pk}))) == 4
    assert found(console.get(LIST, {"model": "nothing"})) == []
    assert len(found(console.get(LIST, {"provider": "local"}))) == 4
    assert found(console.get(LIST, {"provider": "nobody"})) == []


def test_whole_ids_are_searched_and_nothing_else(console: Client, rows: Rows, others: dict[str, Any]) -> None:
    assert found(console.get(LIST, {"q": rows.record.pk})) == [rows.record.pk]
    assert found(console.get(LIST, {"q": others["elsewhere"].key_id})) == [others["elsewhere"].pk]
    assert found(console.get(LIST, {"q": "req_"})) == []


def test_the_table_is_never_counted(console: Client, rows: Rows) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        console.get(LIST)
        console.get(LIST, {"status__exact": "failed"})
    asked = [query["sql"] for query in queries if "usage_usagerecord" in query["sql"]]
    assert asked
    assert not [sql for sql in asked if "COUNT(" in sql.upper()]
    assert all("LIMIT" in sql for sql in asked)


def test_there_is_a_next_page_exactly_when_there_are_more(console: Client, rows: Rows) -> None:
    for _ in range(51):
        add_record(rows.key, rows.model, rows.price)
    assert "?p=2" in console.get(LIST).content.decode()
    second = console.get(LIST, {"p": "2"})
    assert len(found(second)) == 2
    assert "?p=3" not in second.content.decode()


def test_a_record_is_shown_with_names_from_one_partition(console: Client, rows: Rows) -> None:
    page = reverse("console:usage_usagerecord_change", args=[rows.record.pk.replace("_", "_5F")])
    with CaptureQueriesContext(connection) as queries:
        answer = console.get(page)
    shown = answer.content.decode()
    assert "Production (ak_" in shown
    assert "$0.000162000" in shown
    assert "1,234 ms" in shown
    asked = [query["sql"] for query in queries if 'FROM "usage_usagerecord"' in query["sql"]]
    assert len(asked) == 1
    assert '"usage_usagerecord"."day" = ' in asked[0]


@pytest.mark.parametrize("request_id", ["nonsense", "req_5Fzz", "req_5F01a2034adb66954bce5d213890661ba7"])
def test_unknown_records_lead_back_to_the_start(console: Client, request_id: str) -> None:
    answer = console.get(f"{LIST}{request_id}/change/", follow=True)
    assert "exist. Perhaps it was deleted?" in answer.content.decode()


@pytest.mark.parametrize("page", ["change", "delete"])
def test_no_page_changes_or_deletes_a_record(console: Client, rows: Rows, page: str) -> None:
    url = reverse(f"console:usage_usagerecord_{page}", args=[rows.record.pk.replace("_", "_5F")])
    assert console.post(url, {"cost_nanos": "0", "post": "yes"}).status_code == 403
    assert UsageRecord.objects.get(pk=rows.record.pk).cost_nanos == 162_000


def test_no_page_adds_a_record(console: Client, rows: Rows) -> None:
    assert console.post(f"{LIST}add/", {"request_id": new_id("req")}).status_code == 403
    assert UsageRecord.objects.count() == 1


def test_the_database_refuses_to_change_a_record(rows: Rows) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        UsageRecord.objects.filter(pk=rows.record.pk).update(cost_nanos=0)


def test_no_figure_of_a_record_is_squeezed_into_a_column_of_one_digit() -> None:
    rows = [row for _, fieldset in UsageRecordAdmin.fieldsets for row in fieldset["fields"]]
    assert len(rows) > 10
    assert [row for row in rows if not isinstance(row, str) and len(row) > 2] == []


@pytest.mark.parametrize(
    ("changes", "attempts", "guarded"),
    [
        ({"provider": "", "guardrails": [{"action": "blocked", "direction": "input"}]},
         "none: refused before any provider was asked", "No birds: refused the request"),
        ({"provider": "(cache)", "cache_share_ppm": 0}, "none: a kept answer", "-"),
        ({"guardrails": [{"action": "redacted", "direction": "output"}]}, "1", "No birds: redacted the answer"),
    ],
)  # fmt: skip
def test_attempts_and_guardrails_are_told_in_words(changes: dict[str, Any], attempts: str, guarded: str) -> None:
    verdicts = [{"rule": "guard_1", "name": "No birds", **each} for each in changes.get("guardrails", [])]
    row = UsageRecord(**{"provider": "local", "attempts": [], **changes, "guardrails": verdicts})
    page = UsageRecordAdmin(UsageRecord, console_site)
    assert (page.all_attempts(row), page.guarded(row)) == (attempts, guarded)
