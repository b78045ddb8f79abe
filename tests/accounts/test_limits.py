"""Limits of organizations, projects and plans: stored as possible ones only, merged limit by limit, announced."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from django.db import IntegrityError, transaction
from django.db.models import ProtectedError

from apps.accounts.limits import assign_plan, effective_limits, merge, set_limits
from apps.accounts.models import Organization, Plan, Project
from apps.accounts.organizations import create_organization, default_project
from apps.core.errors import InvalidInput
from apps.core.limit_fields import LIMIT_FIELDS
from apps.core.limits import MAX_BUDGET_NANOS, MAX_RATE, RATES, Limits
from apps.keys.issuing import create_key
from apps.keys.models import ApiKey
from tests.announcements import listening

Owner = Organization | Project | Plan | ApiKey


@pytest.fixture
def owners(db: None) -> dict[str, Owner]:
    organization = create_organization("Acme")
    project = default_project(organization)
    return {
        "organization": organization,
        "project": project,
        "plan": Plan.objects.create(id="starter", name="Starter"),
        "key": create_key(project, name="Backend").key,
    }


@pytest.fixture
def announcements() -> Iterator[Callable[[], list[str]]]:
    """What gateways are told: call it to get the messages since the last call."""
    with listening() as heard:
        yield heard


each_owner = pytest.mark.parametrize("kind", ["organization", "project", "plan", "key"])
ALL = Limits(60, 40_000, 1_000, 5, 12_500_000_000, "month")


@pytest.mark.parametrize("name", RATES)
def test_an_own_rate_wins_and_the_plan_fills_the_gap(name: str) -> None:
    own = msgspec.structs.replace(Limits(), **{name: 7})
    assert getattr(merge(own, ALL), name) == 7
    others = [other for other in RATES if other != name]
    assert [getattr(merge(own, ALL), other) for other in others] == [getattr(ALL, other) for other in others]
    assert merge(own, Limits()) == own


def test_an_own_limit_may_be_wider_than_the_plan() -> None:
    assert merge(Limits(concurrency=1_000), Limits(concurrency=1)).concurrency == 1_000


def test_a_budget_comes_with_its_period() -> None:
    plan = Limits(budget_nanos=5, budget_period="month")
    assert merge(Limits(budget_nanos=9, budget_period="day"), plan) == Limits(budget_nanos=9, budget_period="day")
    assert merge(Limits(budget_period="day"), plan) == plan
    assert merge(Limits(budget_nanos=0), plan) == Limits(budget_nanos=0, budget_period="lifetime")


def test_without_a_plan_the_own_limits_hold(owners: dict[str, Any]) -> None:
    set_limits(owners["organization"], Limits(concurrency=2))
    assert effective_limits(owners["organization"]) == Limits(concurrency=2)


def test_a_plan_holds_for_its_organizations_until_it_is_left(owners: dict[str, Any]) -> None:
    set_limits(owners["plan"], ALL)
    set_limits(owners["organization"], Limits(concurrency=2))
    assign_plan(owners["organization"], owners["plan"])
    stored = Organization.objects.get(pk=owners["organization"].pk)
    assert effective_limits(stored) == msgspec.structs.replace(ALL, concurrency=2)
    assign_plan(stored, None)
    assert effective_limits(Organization.objects.get(pk=stored.pk)) == Limits(concurrency=2)


def test_a_plan_in_use_cannot_be_deleted(owners: dict[str, Any]) -> None:
    assign_plan(owners["organization"], owners["plan"])
    with pytest.raises(ProtectedError):
        owners["plan"].delete()


@pytest.mark.parametrize("kind", ["organization", "project", "plan"])
def test_new_limits_replace_all_old_ones_and_are_announced_on_commit(
    owners: dict[str, Any],
    kind: str,
    announcements: Callable[[], list[str]],
    django_capture_on_commit_callbacks: Any,
) -> None:
    row = owners[kind]
    set_limits(row, ALL)
    assert announcements() == []
    with django_capture_on_commit_callbacks(execute=True):
        set_limits(row, Limits(concurrency=1))
    row.refresh_from_db()
    assert row.limits == Limits(concurrency=1)
    assert announcements() == ["keys"]


def test_another_plan_is_announced(
    owners: dict[str, Any], announcements: Callable[[], list[str]], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assign_plan(owners["organization"], owners["plan"])
    assert announcements() == ["keys"]


@pytest.mark.parametrize("kind", ["organization", "project", "plan"])
def test_impossible_limits_change_nothing(owners: dict[str, Any], kind: str) -> None:
    set_limits(owners[kind], ALL)
    with pytest.raises(InvalidInput):
        set_limits(owners[kind], Limits(requests_per_minute=0))
    owners[kind].refresh_from_db()
    assert owners[kind].limits == ALL


@each_owner
def test_there_are_no_limits_to_begin_with(owners: dict[str, Any], kind: str) -> None:
    owners[kind].refresh_from_db()
    assert owners[kind].limits == Limits()


@each_owner
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in RATES for value in (0, -1, MAX_RATE + 1)),
        ("budget_nanos", -1),
        ("budget_nanos", MAX_BUDGET_NANOS + 1),
        ("budget_period", "year"),
    ],
)
def test_the_database_refuses_what_cannot_be(owners: dict[str, Any], kind: str, name: str, value: Any) -> None:
    rows = type(owners[kind])._default_manager.filter(pk=owners[kind].pk)
    with pytest.raises(IntegrityError, match=name), transaction.atomic():
        rows.update(**{name: value})
    assert rows.get().limits == Limits()


@each_owner
def test_the_ends_of_every_range_are_stored(owners: dict[str, Any], kind: str) -> None:
    rows = type(owners[kind])._default_manager.filter(pk=owners[kind].pk)
    for limits in (Limits(1, 1, 1, 1, 0, "day"), Limits(*[MAX_RATE] * 4, MAX_BUDGET_NANOS, "week")):
        rows.update(**msgspec.structs.asdict(limits))
        assert rows.get().limits == limits


def test_columns_and_limits_have_the_same_names() -> None:
    assert set(LIMIT_FIELDS) == set(Limits.__struct_fields__)
