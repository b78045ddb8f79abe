"""Sandbox keys: what they are they stay, they have no budget, and gateways know them."""

import pytest
from django.conf import settings
from django.db import IntegrityError, transaction

from apps.core.crypto import keyed_digests
from apps.core.errors import InvalidInput
from apps.core.limits import Limits
from apps.keys.issuing import create_key, set_limits
from apps.keys.models import ApiKey
from apps.keys.reading import read_grant
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_gateway_learns_which_kind_a_key_is(sandbox: bool) -> None:
    issued = create_key(factories.project(), name="Either", sandbox=sandbox)
    grant = read_grant(keyed_digests(issued.secret, settings.KEY_PEPPERS))
    assert grant is not None
    assert grant.sandbox is issued.key.sandbox is sandbox
    assert issued.secret.startswith("ak_test") is sandbox


def test_a_sandbox_key_has_rate_limits_but_no_budget() -> None:
    project = factories.project()
    key = create_key(project, name="Trying", sandbox=True, limits=Limits(requests_per_minute=5)).key
    with pytest.raises(InvalidInput, match="no budget"):
        create_key(project, name="Paying", sandbox=True, limits=Limits(budget_nanos=0))
    with pytest.raises(InvalidInput, match="no budget"):
        set_limits(key, Limits(budget_nanos=1))
    key.refresh_from_db()
    assert key.limits == Limits(requests_per_minute=5)


def test_the_database_refuses_a_live_key_that_is_called_a_sandbox_key_and_a_budget_for_one() -> None:
    project = factories.project()
    live = create_key(project, name="Live").key
    test = create_key(project, name="Test", sandbox=True).key
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=live.pk).update(sandbox=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        ApiKey.objects.filter(pk=test.pk).update(budget_nanos=1)
