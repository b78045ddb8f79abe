"""A balance whose drop failed is dropped later: nobody spends from a stale one for ever."""

from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from apps.accounts.models import Organization
from apps.billing import balance_cache
from apps.billing.balance_cache import drop_stale, invalidate_on_commit, money_key
from apps.billing.models import StaleBalance
from apps.billing.tasks import settle_usage
from apps.core.redis import single_try_client
from tests.billing.books import credit, organization

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cached(transactional_db: None) -> tuple[str, Any]:
    """An organization whose money Redis knows."""
    owner = organization("Cached").id
    client = single_try_client()
    client.hset(money_key(owner), "balance", 5)
    return owner, client


def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.conf.settings.REDIS_URL", "redis://127.0.0.1:1/0")


def test_a_change_drops_the_balance_and_leaves_nothing_to_do(cached: tuple[str, Any]) -> None:
    owner, client = cached
    invalidate_on_commit(owner)
    assert not client.exists(money_key(owner)) and not StaleBalance.objects.exists()


def test_what_a_store_that_is_away_did_not_drop_is_dropped_when_it_is_back(
    cached: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, client = cached
    with monkeypatch.context() as patch:
        away(patch)
        invalidate_on_commit(owner)
        assert drop_stale() == 1
    assert client.hget(money_key(owner), "balance") == b"5"
    assert drop_stale() == 1
    assert not client.exists(money_key(owner)) and drop_stale() == 0


def test_a_process_that_dies_after_its_commit_leaves_it_to_the_task(
    cached: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, client = cached
    monkeypatch.setattr(balance_cache.transaction, "on_commit", lambda work: None)
    invalidate_on_commit(owner)
    assert drop_stale() == 1 and not client.exists(money_key(owner))


def test_what_is_rolled_back_drops_nothing(cached: tuple[str, Any]) -> None:
    owner, client = cached
    with pytest.raises(RuntimeError), transaction.atomic():
        invalidate_on_commit(owner)
        raise RuntimeError
    assert drop_stale() == 0 and client.exists(money_key(owner))


def test_money_that_is_granted_while_the_store_is_away_arrives(
    cached: tuple[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, client = cached
    with monkeypatch.context() as patch:
        away(patch)
        credit(Organization.objects.get(pk=owner), 1_000)
    assert client.exists(money_key(owner))
    drop_stale()
    assert not client.exists(money_key(owner))


def test_the_task_that_runs_every_second_does_it(cached: tuple[str, Any], tmp_path: Path) -> None:
    owner, client = cached
    StaleBalance.objects.create(organization_id=owner)
    with override_settings(JOURNAL_DIR=tmp_path):
        settle_usage()
    assert not client.exists(money_key(owner)) and not StaleBalance.objects.exists()
