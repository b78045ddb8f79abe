"""A mistake of ours while a stream is put into another dialect's words: told to the client, logged, and free."""

from typing import Any

import pytest

from apps.gateway.dialects.completions import CompletionsStream
from apps.gateway.dialects.messages.answer import MessagesStream
from apps.gateway.dialects.responses.answer import ResponsesStream
from apps.usage.contracts import Outcome
from tests.gateway.conftest import Bench

pytestmark = pytest.mark.asyncio
USER = [{"role": "user", "content": "one two three"}]


@pytest.mark.parametrize(
    ("path", "body", "renderer"),
    [
        ("/api/v1/messages", {"messages": USER, "max_tokens": 50}, MessagesStream),
        ("/api/v1/responses", {"input": "one two three"}, ResponsesStream),
        ("/api/v1/completions", {"prompt": "one two three"}, CompletionsStream),
    ],
)
async def test_it_is_the_last_event_and_costs_nothing(
    bench: Bench,
    path: str,
    body: dict[str, Any],
    renderer: type[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    right, blocks = renderer.feed, []

    def stumble_once(self: Any, block: bytes) -> bytes:
        blocks.append(block)
        if len(blocks) == 2:
            raise KeyError("a mistake of ours")
        return bytes(right(self, block))

    monkeypatch.setattr(renderer, "feed", stumble_once)
    bench.offer("sandbox-echo")
    call = await bench.call(path, {"model": "sandbox-echo", "stream": True, **body})
    assert call.status == 200, call.body
    closed = bench.record(call)
    assert (closed.outcome, closed.error_code, closed.cost_nanos) == (Outcome.FAILED, "internal_error", 0)
    assert "Internal error; request id" in call.body.decode() and "a mistake of ours" not in call.body.decode()
    assert "bug while relaying" in caplog.text
    assert bench.runtime.transport.open_connections == 0
