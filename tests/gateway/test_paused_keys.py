"""A paused key is refused with a code of its own, on every endpoint, before anything is read or called."""

from collections.abc import Sequence

import msgspec
import pytest
from django.conf import settings

from apps.keys.contracts import KeyGrant
from apps.keys.lookup import KeyLookup
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio


async def pause(bench: Bench) -> None:
    usual = await bench.runtime.keys.find(bench.key)
    assert usual is not None
    paused = msgspec.structs.replace(usual, paused_at=1.0)

    async def read(digests: Sequence[str]) -> KeyGrant | None:
        return paused

    bench.runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)


@pytest.mark.parametrize("path", ["/api/v1/key", "/api/v1/models"])
async def test_reading_is_refused(bench: Bench, path: str) -> None:
    assert (await bench.call(path)).status == 200
    await pause(bench)
    answer = await bench.call(path)
    assert answer.status == 403
    error = answer.json["error"]
    assert (error["type"], error["code"]) == ("permission_error", "key_paused")
    assert "spending too fast" in error["message"]


async def test_a_resumed_key_works_as_soon_as_it_is_forgotten(bench: Bench) -> None:
    usual = await bench.runtime.keys.find(bench.key)
    assert usual is not None
    state = [msgspec.structs.replace(usual, paused_at=1.0), usual]

    async def read(digests: Sequence[str]) -> KeyGrant | None:
        return state[0]

    bench.runtime.keys = KeyLookup(read, settings.KEY_PEPPERS)
    assert (await bench.call("/api/v1/key")).status == 403
    state.pop(0)
    bench.runtime.keys.forget(usual.digest)
    assert (await bench.call("/api/v1/key")).status == 200
