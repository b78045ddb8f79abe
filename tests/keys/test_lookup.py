"""Looking keys up: fast from the cache, never stale for long, never 401 because a store is away."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from apps.core.crypto import keyed_digests
from apps.core.errors import Unavailable
from apps.keys.contracts import KeyGrant
from apps.keys.keyformat import new_key
from apps.keys.lookup import FRESH_S, RETRY_S, STALE_S, KeyLookup
from tests.clocks import Clock

PEPPERS = {"t1": b"p" * 32}

pytestmark = pytest.mark.asyncio


class Store:
    """Stands for the database: counts reads, can be away, slow or changed."""

    def __init__(self, key: str) -> None:
        self.grant: KeyGrant | None = KeyGrant(
            key_id="key_1", organization_id="org_1", organization_slug="demo", project_id="proj_1",
            project_slug="default", name="n", digest=keyed_digests(key, PEPPERS)[0], created_at=0.0, expires_at=None,
            revoked_at=None,
        )  # fmt: skip
        self.reads = 0
        self.is_away = False
        self.gate: asyncio.Event | None = None

    async def read(self, digests: Sequence[str]) -> KeyGrant | None:
        self.reads += 1
        found = self.grant if self.grant and self.grant.digest in digests else None
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("away")
        return found

    def change(self, **changes: Any) -> None:
        assert self.grant is not None
        self.grant = msgspec.structs.replace(self.grant, **changes)


@pytest.fixture
def key() -> str:
    return new_key()


@pytest.fixture
def store(key: str) -> Store:
    return Store(key)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lookup(store: Store, clock: Clock) -> KeyLookup:
    return KeyLookup(store.read, PEPPERS, clock=clock)


async def test_a_known_key_is_read_once(lookup: KeyLookup, store: Store, key: str) -> None:
    assert [await lookup.find(key) for _ in range(3)] == [store.grant] * 3
    assert store.reads == 1


async def test_a_malformed_key_costs_no_read(lookup: KeyLookup, store: Store, key: str) -> None:
    assert await lookup.find(key[:-1] + ("0" if key[-1] != "0" else "1")) is None
    assert await lookup.find("") is None
    assert store.reads == 0


async def test_an_unknown_key_is_none_and_is_not_read_again_at_once(lookup: KeyLookup, store: Store) -> None:
    stranger = new_key()
    assert await lookup.find(stranger) is None
    assert await lookup.find(stranger) is None
    assert store.reads == 1


async def test_those_who_ask_at_once_share_one_read(lookup: KeyLookup, store: Store, key: str) -> None:
    found = await asyncio.gather(*(lookup.find(key) for _ in range(50)))
    assert found == [store.grant] * 50
    assert store.reads == 1


async def test_a_caller_that_leaves_does_not_spoil_it_for_the_others(lookup: KeyLookup, store: Store, key: str) -> None:
    store.gate = asyncio.Event()
    first, second = asyncio.create_task(lookup.find(key)), asyncio.create_task(lookup.find(key))
    await asyncio.sleep(0.01)
    first.cancel()
    store.gate.set()
    assert await second == store.grant


async def test_an_announced_revocation_counts_at_once(lookup: KeyLookup, store: Store, key: str) -> None:
    assert await lookup.find(key)
    store.change(revoked_at=1.0)
    assert await lookup.find(key)
    lookup.forget(store.grant.digest if store.grant else "")
    assert await lookup.find(key) is None


async def test_without_an_announcement_a_revocation_counts_within_its_bound(
    lookup: KeyLookup, store: Store, clock: Clock, key: str
) -> None:
    assert await lookup.find(key)
    store.change(revoked_at=1.0)
    clock.now += FRESH_S
    assert await lookup.find(key) is None


async def test_a_revocation_during_a_read_is_not_overwritten_by_it(lookup: KeyLookup, store: Store, key: str) -> None:
    store.gate = asyncio.Event()
    reading = asyncio.create_task(lookup.find(key))
    await asyncio.sleep(0.01)
    store.change(revoked_at=1.0)
    lookup.forget(store.grant.digest if store.grant else "")
    store.gate.set()
    await reading
    assert await lookup.find(key) is None


async def test_after_missed_announcements_everything_is_read_again(lookup: KeyLookup, store: Store, key: str) -> None:
    await lookup.find(key)
    store.change(revoked_at=1.0)
    lookup.distrust()
    assert await lookup.find(key) is None


async def test_only_the_keys_of_the_named_organization_are_read_again(
    lookup: KeyLookup, store: Store, key: str
) -> None:
    await lookup.find(key)
    lookup.distrust("org_2")
    await lookup.find(key)
    assert store.reads == 1
    lookup.distrust("org_1")
    await lookup.find(key)
    assert store.reads == 2


async def test_an_expired_key_is_none_without_any_read(lookup: KeyLookup, store: Store, key: str) -> None:
    store.change(expires_at=1.0)
    assert await lookup.find(key) is None


async def test_with_the_store_away_a_known_key_is_served_and_an_unknown_one_is_unavailable(
    lookup: KeyLookup, store: Store, clock: Clock, key: str
) -> None:
    await lookup.find(key)
    store.is_away = True
    clock.now += FRESH_S
    assert await lookup.find(key) == store.grant
    with pytest.raises(Unavailable):
        await lookup.find(new_key())
    clock.now += STALE_S
    with pytest.raises(Unavailable):
        await lookup.find(key)


async def test_with_a_store_that_hangs_only_the_first_caller_waits(
    lookup: KeyLookup, store: Store, clock: Clock, key: str
) -> None:
    await lookup.find(key)
    store.is_away = True
    clock.now += FRESH_S
    await lookup.find(key)
    store.gate = asyncio.Event()  # from now on reads do not even fail
    for _ in range(5):
        clock.now += RETRY_S
        async with asyncio.timeout(1):
            assert await lookup.find(key) == store.grant
    store.is_away = False
    store.change(revoked_at=1.0)
    store.gate.set()
    await asyncio.sleep(0.01)
    clock.now += FRESH_S
    assert await lookup.find(key) is None


async def test_with_the_store_away_it_is_not_asked_for_every_request(
    lookup: KeyLookup, store: Store, clock: Clock, key: str
) -> None:
    await lookup.find(key)
    store.is_away = True
    clock.now += FRESH_S
    for _ in range(20):
        await lookup.find(key)
    assert store.reads == 2


async def test_a_grant_of_another_key_is_never_accepted(lookup: KeyLookup, store: Store, key: str) -> None:
    other = new_key()
    store.change(digest="t1$" + "0" * 64)

    async def wrong_answer(digests: Sequence[str]) -> KeyGrant | None:
        return store.grant

    assert await KeyLookup(wrong_answer, PEPPERS).find(other) is None
