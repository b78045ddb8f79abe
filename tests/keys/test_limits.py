"""Limits of keys: given at issue, changed later, and what a gateway reads of all three levels."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts.limits import assign_plan
from apps.accounts.limits import set_limits as set_limits_of
from apps.accounts.models import Plan
from apps.core.crypto import keyed_digests
from apps.core.errors import InvalidInput
from apps.core.limits import Limits
from apps.core.priorities import Priority
from apps.keys.contracts import KeyGrant
from apps.keys.issuing import IssuedKey, create_key, revoke_key, set_limits, set_priority
from apps.keys.models import ApiKey
from apps.keys.reading import read_grant
from tests import factories
from tests.announcements import listening

pytestmark = pytest.mark.django_db

LIMITS = Limits(60, 40_000, 1_000, 5, 1_000_000_000, "day")


@pytest.fixture
def announcements() -> Iterator[Callable[[], list[str]]]:
    """What gateways are told: call it to get the messages since the last call."""
    with listening() as heard:
        yield heard


def read(issued: IssuedKey) -> KeyGrant:
    grant = read_grant(keyed_digests(issued.secret, settings.KEY_PEPPERS))
    assert grant is not None
    return grant


def test_a_key_is_made_with_its_limits() -> None:
    key = create_key(factories.project(), name="Limited", limits=LIMITS).key
    key.refresh_from_db()
    assert key.limits == LIMITS


def test_a_key_has_no_limits_unless_somebody_says_so() -> None:
    assert read(create_key(factories.project(), name="Free")).key_limits == Limits()


@pytest.mark.parametrize("wrong", [Limits(concurrency=0), Limits(budget_nanos=-1), Limits(requests_per_day=-5)])
def test_a_key_with_impossible_limits_is_not_made(wrong: Limits) -> None:
    with pytest.raises(InvalidInput):
        create_key(factories.project(), name="Limited", limits=wrong)
    assert not ApiKey.objects.exists()


def test_new_limits_replace_all_old_ones_and_nothing_else() -> None:
    key = create_key(factories.project(), name="Limited", limits=LIMITS).key
    revoked = revoke_key(key)
    changed = set_limits(key, Limits(concurrency=2))
    assert changed.limits == Limits(concurrency=2)
    stored = ApiKey.objects.get(pk=key.pk)
    assert stored.limits == Limits(concurrency=2)
    assert stored.revoked_at == revoked.revoked_at


def test_impossible_limits_change_nothing() -> None:
    key = create_key(factories.project(), name="Limited", limits=LIMITS).key
    with pytest.raises(InvalidInput):
        set_limits(key, Limits(tokens_per_minute=0))
    assert ApiKey.objects.get(pk=key.pk).limits == LIMITS


def test_a_change_makes_gateways_read_the_key_again(
    announcements: Callable[[], list[str]], django_capture_on_commit_callbacks: Any
) -> None:
    key = create_key(factories.project(), name="Limited").key
    with django_capture_on_commit_callbacks(execute=True):
        set_limits(key, LIMITS)
    assert announcements() == [f"key:{key.digest}"]


def test_a_grant_has_the_limits_of_all_three_levels_and_costs_one_query() -> None:
    project = factories.project()
    issued = create_key(project, name="Limited", limits=LIMITS)
    set_limits_of(project, Limits(requests_per_minute=600))
    plan = Plan.objects.create(id="team", name="Team", concurrency=50, budget_nanos=7, budget_period="month")
    assign_plan(project.organization, plan)
    set_limits_of(project.organization, Limits(concurrency=80))
    with CaptureQueriesContext(connection) as queries:
        grant = read(issued)
    assert len(queries) == 1
    assert grant.key_limits == LIMITS
    assert grant.project_limits == Limits(requests_per_minute=600)
    assert grant.organization_limits == Limits(concurrency=80, budget_nanos=7, budget_period="month")


@pytest.mark.parametrize(
    ("of_plan", "of_organization", "of_key", "holds"),
    [
        (None, None, None, Priority.NORMAL),
        (Priority.HIGH, None, None, Priority.HIGH),
        (Priority.HIGH, Priority.LOW, None, Priority.LOW),
        (Priority.LOW, Priority.HIGH, None, Priority.HIGH),
        (None, None, Priority.HIGH, Priority.NORMAL),  # no key has more than its organization
        (None, Priority.LOW, Priority.NORMAL, Priority.LOW),
        (None, Priority.HIGH, Priority.LOW, Priority.LOW),
    ],
)
def test_a_key_has_its_organizations_priority_or_less(
    of_plan: int | None, of_organization: int | None, of_key: int | None, holds: Priority
) -> None:
    project = factories.project()
    issued = create_key(project, name="Key")
    organization = project.organization
    organization.plan = Plan.objects.create(id="p", name="P", priority=of_plan)
    organization.priority = of_organization
    organization.save()
    set_priority(issued.key, of_key)
    assert read(issued).priority is holds


def test_a_priority_is_announced_and_one_that_there_is_not_is_refused(
    announcements: Callable[[], list[str]], django_capture_on_commit_callbacks: Any
) -> None:
    key = create_key(factories.project(), name="Key").key
    announcements()
    with django_capture_on_commit_callbacks(execute=True):
        set_priority(key, Priority.LOW)
    assert announcements() == [f"key:{key.digest}"]
    with pytest.raises(InvalidInput):
        set_priority(key, 3)
