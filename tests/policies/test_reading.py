"""What a gateway reads of an organization's decisions, at what cost, and how it learns of changes."""

from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core.crypto import keyed_digests
from apps.keys.contracts import KeyGrant
from apps.keys.issuing import IssuedKey, create_key
from apps.keys.reading import read_grant
from apps.policies.changing import announce_policy
from apps.policies.models import GuardrailRule
from tests import factories
from tests.announcements import listening

pytestmark = pytest.mark.django_db


def read(issued: IssuedKey) -> KeyGrant:
    grant = read_grant(keyed_digests(issued.secret, settings.KEY_PEPPERS))
    assert grant is not None
    return grant


def rule(issued: IssuedKey, **changes: Any) -> GuardrailRule:
    values: dict[str, Any] = {"name": "No gossip", "kind": "keywords", "check_settings": {"words": ["gossip"]}}
    return GuardrailRule.objects.create(organization=issued.key.organization, **(values | changes))


def rules_of(issued: IssuedKey) -> list[str]:
    policy = read(issued).policy
    return [each.id for each in policy.guardrails] if policy else []


def test_who_decided_nothing_has_no_policy_and_pays_no_query_for_it() -> None:
    issued = create_key(factories.project(), name="Free")
    with CaptureQueriesContext(connection) as queries:
        assert read(issued).policy is None
    assert len(queries) == 1


def test_what_is_decided_comes_with_the_key() -> None:
    issued = create_key(factories.project(), name="Guarded")
    stored = rule(issued)
    with CaptureQueriesContext(connection) as queries:
        assert rules_of(issued) == [stored.id]
    assert len(queries) == 4  # the key, its rules, the organization's provider keys


def test_a_rule_that_is_off_is_no_policy() -> None:
    issued = create_key(factories.project(), name="Guarded")
    rule(issued, mode="off")
    assert read(issued).policy is None


def test_a_rule_of_one_key_is_not_one_of_its_neighbour() -> None:
    project = factories.project()
    guarded, other = create_key(project, name="Guarded"), create_key(project, name="Other")
    stored = rule(guarded, key=guarded.key)
    assert rules_of(guarded) == [stored.id]
    assert rules_of(other) == []


def test_a_rule_never_reaches_another_organization() -> None:
    mine, theirs = (create_key(factories.project(name), name="Key") for name in ("Acme", "Umbrella"))
    rule(mine)
    assert read(theirs).policy is None
    rule(theirs, mode="log")
    assert [len(rules_of(issued)) for issued in (mine, theirs)] == [1, 1]


def test_gateways_are_told_whose_keys_to_read_again(django_capture_on_commit_callbacks: Any) -> None:
    with listening() as heard:
        with django_capture_on_commit_callbacks(execute=True):
            announce_policy("org_1")
        assert heard() == ["keys:org_1"]
