"""Whether a store can have forgotten an organization: by its age, and by what the organization had done before."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings

from apps.core.redis import single_try_client
from apps.core.scripts import NEW_STORE_KEY, NEW_STORE_MS
from apps.usage.forgetting import FORGOTTEN_S, pause_ms, restart_pause_ms
from apps.usage.recording import record
from tests.factories import closed, opened, project

pytestmark = pytest.mark.django_db
DAY_S = 86_400
FORGOTTEN_MS = FORGOTTEN_S * 1000


@pytest.fixture
def store() -> Iterator[Any]:
    client = single_try_client()
    client.flushdb()
    yield client
    client.close()


def served(organization_id: str, *, ago_s: float) -> None:
    """A record of the organization of so long ago."""
    moment = f"{int((time.time() - ago_s) * 1000):012x}"
    record([closed(opened(request_id=f"req_{moment}{'0' * 20}", organization_id=organization_id))])


def make_old(store: Any, *, age_s: float) -> None:
    run_id = store.info("server")["run_id"]
    store.set(NEW_STORE_KEY.format(run_id=run_id), 1, px=int(NEW_STORE_MS - age_s * 1000))


@pytest.fixture
def other_store(settings: LazySettings) -> Iterator[Any]:
    """A store of claims and answers beside that of money."""
    settings.ANSWERS_URL = f"{settings.REDIS_URL.partition('?')[0]}?db=15"
    client = single_try_client(settings.ANSWERS_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def owner() -> str:
    return project("Forgotten").organization_id


def test_an_emptied_store_is_not_believed_by_whom_it_may_have_forgotten(store: Any, owner: str) -> None:
    served(owner, ago_s=60)
    assert FORGOTTEN_MS - 10_000 < pause_ms(owner, DAY_S) <= FORGOTTEN_MS


def test_nobody_waits_who_was_not_served_before(store: Any, owner: str) -> None:
    assert pause_ms(owner, DAY_S) == 0
    served(project("Another").organization_id, ago_s=60)
    assert pause_ms(owner, DAY_S) == 0


def test_what_was_served_since_the_store_began_is_not_forgotten(store: Any, owner: str) -> None:
    make_old(store, age_s=120)
    served(owner, ago_s=60)
    assert pause_ms(owner, DAY_S) == 0
    served(owner, ago_s=180)
    assert FORGOTTEN_MS - 130_000 < pause_ms(owner, DAY_S) <= FORGOTTEN_MS - 120_000


def test_what_nobody_remembers_any_more_cannot_be_forgotten(store: Any, owner: str) -> None:
    served(owner, ago_s=7200)
    assert pause_ms(owner, 3600) == 0
    assert pause_ms(owner, DAY_S) > 0


def test_a_store_that_is_old_enough_is_believed(store: Any, owner: str) -> None:
    make_old(store, age_s=FORGOTTEN_S + 1)
    served(owner, ago_s=600)
    assert pause_ms(owner, DAY_S) == 0


def test_it_is_the_store_of_claims_whose_age_counts(store: Any, other_store: Any, owner: str) -> None:
    served(owner, ago_s=60)
    make_old(store, age_s=FORGOTTEN_S + 1)
    assert pause_ms(owner, DAY_S) > 0
    make_old(other_store, age_s=FORGOTTEN_S + 1)
    store.flushdb()
    assert pause_ms(owner, DAY_S) == 0


@pytest.mark.parametrize(
    ("told_ago_s", "age_s", "served_ago_s", "pauses"),
    [
        (20, 5, 10, True),  # after the last moment that it surely remembers
        (20, 5, 60, False),  # before it: it is remembered
        (20, 5, 1, False),  # since the restart
        (60, 31, 40, False),  # that long ago nobody tries again
    ],
)
def test_a_restarted_store_is_waited_for_by_who_was_served_after_what_it_remembers(
    owner: str, told_ago_s: float, age_s: float, served_ago_s: float, pauses: bool
) -> None:
    served(owner, ago_s=served_ago_s)
    told_ms = int(1000 * (time.time() - told_ago_s))
    left_ms = restart_pause_ms(owner, DAY_S, told_ms=told_ms, age_ms=int(1000 * age_s))
    assert left_ms == (25_000 if pauses else 0)
    assert restart_pause_ms(project("Another").organization_id, DAY_S, told_ms=0, age_ms=0) == 0
