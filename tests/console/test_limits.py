"""Limits and plans in the console: of organizations and projects, and how gateways learn of them."""

from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse

from apps.accounts.limits import assign_plan, set_limits
from apps.accounts.models import Organization, Plan, Project
from apps.core.limits import Limits
from tests.console.cast import Rows, limit_fields

NO_INLINES = {
    f"{prefix}-{count}_FORMS": "0"
    for prefix in ("memberships", "projects", "data_policy")
    for count in ("TOTAL", "INITIAL")
}


def page_of(row: Organization | Project | Plan) -> str:
    return reverse(f"console:accounts_{row._meta.model_name}_change", args=[quote(row.pk)])


def fields_of(row: Organization | Project | Plan, **limits: str) -> dict[str, str]:
    return {"name": row.name, **limit_fields(**limits), **NO_INLINES}


def owner(rows: Rows, kind: str) -> Any:
    return getattr(rows, kind)


each_kind = pytest.mark.parametrize("kind", ["organization", "project", "plan"])


@each_kind
def test_limits_are_set_exactly_and_announced(
    console: Client, rows: Rows, kind: str, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    row = owner(rows, kind)
    limited = fields_of(row, budget_nanos="1234567.000000001", budget_period="week", tokens_per_minute="40000")
    with django_capture_on_commit_callbacks(execute=True):
        assert console.post(page_of(row), limited).status_code == 302
    row.refresh_from_db()
    assert row.limits == Limits(tokens_per_minute=40_000, budget_nanos=1_234_567_000_000_001, budget_period="week")
    assert announcements() == ["keys"]
    shown = console.get(page_of(row)).content.decode()
    assert 'value="1234567.000000001"' in shown


def test_a_new_name_alone_is_not_announced(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert console.post(page_of(rows.project), {**fields_of(rows.project), "name": "Renamed"}).status_code == 302
    assert announcements() == []


@each_kind
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"requests_per_minute": "0"}, "greater than or equal to 1"),
        ({"concurrency": "-3"}, "greater than or equal to 1"),
        ({"tokens_per_minute": "1000000001"}, "less than or equal to 1000000000"),
        ({"requests_per_day": "many"}, "Enter a whole number"),
        ({"budget_nanos": "-0.01"}, "A budget cannot be negative"),
        ({"budget_nanos": "0.0000000001"}, "at most nine decimals"),
        ({"budget_nanos": "ten"}, "is not an amount in USD"),
        ({"budget_nanos": "9000000.01"}, "at most 9,000,000 USD"),
        ({"budget_period": "year"}, "not one of the available choices"),
    ],
)
def test_limits_that_cannot_be_are_explained(
    console: Client, rows: Rows, kind: str, wrong: dict[str, str], words: str
) -> None:
    row = owner(rows, kind)
    before = row.limits
    answer: Any = console.post(page_of(row), fields_of(row, **wrong))
    assert answer.status_code == 200
    [errors] = answer.context["adminform"].form.errors.values()
    assert words in errors[0]
    row.refresh_from_db()
    assert row.limits == before


def test_an_organization_takes_a_plan_and_shows_what_holds_then(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    chosen = {**fields_of(rows.organization, concurrency="7"), "plan": rows.plan.pk}
    with django_capture_on_commit_callbacks(execute=True):
        assert console.post(page_of(rows.organization), chosen).status_code == 302
    rows.organization.refresh_from_db()
    assert rows.organization.plan == rows.plan
    assert announcements() == ["keys"]
    assert "60 requests per minute, 7 at a time" in console.get(page_of(rows.organization)).content.decode()
    listed = console.get("/console/accounts/organization/", {"plan__id__exact": rows.plan.pk})
    assert list(listed.context["cl"].result_list) == [rows.organization]


def test_a_plan_is_added_with_its_limits(console: Client, rows: Rows) -> None:
    fields = {"name": "Team", "id": "team", **limit_fields(budget_nanos="0", budget_period="day")}
    assert console.post(reverse("console:accounts_plan_add"), fields).status_code == 302
    assert Plan.objects.get(pk="team").limits == Limits(budget_nanos=0, budget_period="day")
    assert "0.00 USD a day" in console.get(reverse("console:accounts_plan_changelist")).content.decode()


def test_the_list_of_plans_counts_their_organizations(console: Client, rows: Rows) -> None:
    assign_plan(rows.organization, rows.plan)
    page = console.get(reverse("console:accounts_plan_changelist")).content.decode()
    assert "plan__id__exact=starter" in page


def test_a_plan_in_use_stays(console: Client, rows: Rows) -> None:
    set_limits(rows.plan, Limits(concurrency=1))
    assign_plan(rows.organization, rows.plan)
    page = reverse("console:accounts_plan_delete", args=[quote(rows.plan.pk)])
    assert console.post(page, {"post": "yes"}).status_code == 403
    assign_plan(rows.organization, None)
    assert console.post(page, {"post": "yes"}).status_code == 302
    assert not Plan.objects.exists()
