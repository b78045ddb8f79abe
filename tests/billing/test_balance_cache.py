"""The cached money of an organization is dropped when its ledger changed, after the commit and not before."""

from collections.abc import Iterator

import pytest
import redis
from django.db import transaction

from apps.accounts.models import Organization
from apps.billing import grants
from apps.billing.balance_cache import invalidate_on_commit, money_key
from apps.billing.posting import post_batch
from apps.core.redis import sync_client
from apps.usage.recording import record
from tests import factories
from tests.billing import books

pytestmark = pytest.mark.django_db(transaction=True)
BY = {"reason": "Because", "actor": "test"}


@pytest.fixture
def store() -> Iterator[redis.Redis]:
    client = sync_client()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def owner() -> Organization:
    return books.organization()


def test_the_key_has_the_organization_as_its_hash_tag() -> None:
    assert money_key("org_1") == "crun:{org_1}:money"


def test_every_movement_but_posted_usage_drops_the_cache(owner: Organization, store: redis.Redis) -> None:
    price = factories.stored_price()
    charged = grants.charge(owner.id, 20, idempotency_key="charge-0", reason="Used")
    acts = [
        lambda: grants.charge(owner.id, 5, idempotency_key="charge", reason="Used"),
        lambda: grants.refund(charged.id, 5, idempotency_key="refund", **BY),
        lambda: grants.write_off(owner.id, idempotency_key="write-off", **BY),
        lambda: books.credit(owner, 50, expires_at=books.START),
        lambda: grants.adjust(owner.id, -5, idempotency_key="adjust", **BY),
        lambda: grants.expire_due(books.START),
    ]
    for number, act in enumerate(acts):
        store.set(money_key(owner.id), "cached")
        act()
        assert store.get(money_key(owner.id)) is None, number
    store.set(money_key(owner.id), "cached")
    record([books.used(owner, price)])
    assert post_batch() == 1
    assert store.get(money_key(owner.id)) == b"cached"


def test_the_cache_stays_until_the_commit_and_after_a_rollback(owner: Organization, store: redis.Redis) -> None:
    store.set(money_key(owner.id), "cached")
    with transaction.atomic():
        books.credit(owner, 50)
        assert store.get(money_key(owner.id)) == b"cached"
        transaction.set_rollback(True)
    assert store.get(money_key(owner.id)) == b"cached"


def test_without_redis_the_ledger_still_works(
    owner: Organization, caplog: pytest.LogCaptureFixture, settings: object
) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:9/0"  # type: ignore[attr-defined]  # pytest-django's wrapper
    invalidate_on_commit(owner.id)
    told = [(line.levelname, line.getMessage()) for line in caplog.records]
    assert told == [("ERROR", "cached balances not dropped yet")]
