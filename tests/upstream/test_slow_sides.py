"""C57 and write stalls: a client that does not read and an upstream that does not are cut in time, with little kept."""

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from apps.gateway.server import deadline
from apps.usage.contracts import Outcome, RequestClosed
from tests.factories import TARGET, offered, snapshot
from tests.gateway.conftest import Bench
from tests.upstream.faulty import HEAD, FaultyUpstream, words
from tests.upstream.test_direct_streams import connected, served
from tests.upstream.test_faults_before_answer import ask, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
PIECE = words(200)
ENDLESS = 4_000
"""Pieces, of 16 KB each: far more than all buffers on the way take."""


async def only_record(bench: Bench) -> RequestClosed:
    async with asyncio.timeout(20):
        while True:
            ends = [entry for entry in bench.journal() if isinstance(entry, RequestClosed)]
            if ends:
                (end,) = ends
                return end
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("reads_slowly", [False, True])
async def test_c57_a_client_that_does_not_read_is_cut_and_pays_for_what_was_sent(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch, reads_slowly: bool
) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [60.0, 60.0, 60.0, 0.5])
    given = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        writer.write(HEAD)
        for _ in range(ENDLESS):
            writer.write(PIECE)
            await writer.drain()
            given += len(PIECE)

    async with FaultyUpstream(pour) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await connected(bench, port, receive_buffer=4_096)
        reading = asyncio.create_task(_sip(reader)) if reads_slowly else None
        end = await only_record(bench)
        if reading is not None:
            reading.cancel()
        writer.close()
    assert (end.outcome, end.error_code) == (Outcome.CANCELLED, "client_closed")
    assert end.tokens.output > 0 and given < 16 << 20 < ENDLESS * len(PIECE)
    assert await nothing_is_held(bench, empty_store)


async def _sip(reader: asyncio.StreamReader) -> None:
    """A byte now and then: no more than if it read nothing."""
    while await reader.read(1):  # noqa: ASYNC110 - it waits because it is slow
        await asyncio.sleep(0.05)


async def test_an_upstream_that_does_not_take_a_large_request_is_cut(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [0.5, 60.0, 60.0, 60.0])
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        target = msgspec.structs.replace(TARGET, base_url=f"http://127.0.0.1:{deaf.getsockname()[1]}/v1")
        model = offered(id="m", targets=(target,), input_modalities=("text", "image"))
        bench.runtime.catalog.snapshot = snapshot(model)
        parts = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (12 << 20)}}]
        call = await ask(bench, stream=True, messages=[{"role": "user", "content": parts}])
    assert (call.status, call.json["error"]["code"]) == (504, "upstream_timeout")
    end = bench.record(call)
    assert (end.outcome, end.cost_nanos) == (Outcome.FAILED, 0)
    assert await nothing_is_held(bench, empty_store)
