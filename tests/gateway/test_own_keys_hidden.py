"""What an own provider key leaves behind: nothing, whatever its provider echoes of it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.conftest import Bench
from tests.gateway.own_keys import KeyedUpstream, Tenants, refusal
from tests.upstream.scripted import Answer, sse
from tests.upstream.test_canaries import Places

pytestmark = pytest.mark.asyncio
SECRET = "sk-own-canary-a8d7f6s5g4h3j2k1"
CHUNK = {"id": SECRET, "object": "chat.completion.chunk", "created": 1, "model": SECRET}
ECHOES = {
    **{
        str(status): refusal(status, f"Incorrect API key provided: {SECRET}.")
        for status in (400, 401, 403, 404, 429, 500)
    },
    "not json": Answer([f"<b>{SECRET}</b>".encode()]),
    "a header": refusal(401, "no", **{"www-authenticate": f"Bearer {SECRET}", "x-request-id": SECRET}),
    "an event": Answer(
        sse({**CHUNK, "choices": [{"index": 0, "delta": {"content": "hi"}}]}, {"error": {"message": SECRET}})
    ),
    "a usage": Answer(sse({**CHUNK, "choices": [], "usage": {"prompt_tokens": SECRET, SECRET: 1}}, "[DONE]")),
    "a cut": Answer([SECRET.encode()], cut=True),
}


@pytest_asyncio.fixture
async def tenants(bench: Bench) -> AsyncIterator[Tenants]:
    async with KeyedUpstream() as upstream:
        found = Tenants(bench, upstream)
        found.offer()
        yield found


@pytest.mark.parametrize("is_exclusive", [True, False])
async def test_the_canary_is_nowhere(
    tenants: Tenants, empty_store: Any, caplog: pytest.LogCaptureFixture, is_exclusive: bool
) -> None:
    caplog.set_level("DEBUG")
    places = Places(tenants.bench, empty_store, caplog, [])
    mine = tenants.own(SECRET, is_exclusive=is_exclusive)
    for echo in ECHOES.values():
        tenants.upstream.by_key[SECRET] = echo
        for stream in (False, True):
            tenants.bench.runtime.upstreams._own_routes.clear()  # the key must be tried each time
            tenants.admit(mine)
            places.calls.append(await tenants.ask(stream=stream))
    assert tenants.upstream.keys.count(SECRET) == 2 * len(ECHOES)
    runtime = tenants.bench.runtime
    shown = [repr(each) for each in (mine, runtime.own_keys, runtime.own_keys._opened, *tenants.grants.values())]
    for text in (*places.texts(), *shown):
        assert SECRET.lower() not in text.lower()
    assert any(SECRET in str(opened.secrets) for opened in runtime.own_keys._opened.values())  # it was really there
