"""The gateway of tests/gateway, in front of upstreams that are played here over real sockets."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.gateway.conftest import bench, empty_store
from tests.upstream.scripted import ScriptedUpstream

__all__ = ["bench", "empty_store", "patience", "upstream"]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of money may take its time: what is tested here is not how soon it is given up."""
    for module in ("redis", "redis_link"):
        monkeypatch.setattr(f"apps.core.{module}.CALL_TIMEOUT_S", 5.0)


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """An upstream that answers what the test wrote down, and keeps what it was sent."""
    async with ScriptedUpstream() as started:
        yield started
