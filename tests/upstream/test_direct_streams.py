"""Pieces of a stream that go to the client at once: the same bytes and records as the ordinary way, however it ends."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import orjson
import pytest
import uvicorn

from apps.gateway.providers.connection import UpstreamResponse
from apps.gateway.server import deadline
from apps.usage.contracts import Outcome
from crun.http_protocol import GatewayProtocol
from tests.gateway.conftest import Bench, Call, CallClient
from tests.upstream.faulty import HEAD, Behaviour, FaultyUpstream, chunk, saying
from tests.upstream.test_faults_before_answer import CHAT, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
BEGIN = 'data: {"id":"a","object":"chat.completion.chunk","created":1,"model":"gpt-x","choices":'
TEXTS = [
    "one two",
    " three",
    "\n",
    '"quoted"',
    "back\\slash",
    "größer",
    " 世界",
    "🙂 smile",
    "a,b",
    "]}",
    "\u2028x",
    "{",
    "ends",
]
STOP = f'{BEGIN}[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}\n\n'
USAGE = f'{BEGIN}[],"usage":{{"prompt_tokens":3,"completion_tokens":40}}}}\n\ndata: [DONE]\n\n'
BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}


def piece(text: str) -> bytes:
    """A chunk as OpenAI writes it."""
    content = orjson.dumps(text).decode()
    return f'{BEGIN}[{{"index":0,"delta":{{"content":{content}}},"finish_reason":null}}]}}\n\n'.encode()


WHOLE = b"".join(map(piece, TEXTS)) + STOP.encode() + USAGE.encode()


def in_reads(*reads: bytes, then: Behaviour | None = None) -> Behaviour:
    """Each of these is a read of its own at the gateway, however busy the loop is: it has its turn after each."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(HEAD)
        for read in reads:
            await asyncio.sleep(0.003)
            writer.write(chunk(read))
        if then is not None:
            await then(reader, writer)
        else:
            writer.write(b"0\r\n\r\n")

    return behave


def without_id(call: Call) -> bytes:
    return call.body.replace(call.request_id.partition("_")[2].encode(), b"")


async def ask(bench: Bench, *, is_direct: bool = True) -> Call:
    return await bench.call(CHAT, BODY, is_direct=is_direct)


async def test_pieces_of_text_go_to_the_client_at_once_and_are_counted(bench: Bench, empty_store: Any) -> None:
    async with FaultyUpstream(in_reads(*map(piece, TEXTS), STOP.encode(), USAGE.encode())) as upstream:
        offer(bench, upstream.target())
        direct, ordinary = await ask(bench), await ask(bench, is_direct=False)
    assert direct.client.writes > len(TEXTS) // 2 and ordinary.client.writes == 0
    assert without_id(direct) == without_id(ordinary)
    assert [event["choices"][0]["delta"].get("content") for event in direct.events[: len(TEXTS)]] == TEXTS
    records = bench.record(direct), bench.record(ordinary)
    assert {(each.outcome, each.tokens.output, each.finish_reason) for each in records} == {
        (Outcome.COMPLETED, 40, "stop")
    }
    assert await nothing_is_held(bench, empty_store)


async def test_what_comes_with_the_end_leaves_with_the_end(bench: Bench, empty_store: Any) -> None:
    async with FaultyUpstream(in_reads(piece("one"), piece("two") + STOP.encode() + USAGE.encode())) as upstream:
        offer(bench, upstream.target())
        direct, ordinary = await ask(bench), await ask(bench, is_direct=False)
    assert without_id(direct) == without_id(ordinary)
    _, first, last = direct.sent
    assert b"one" in first["body"] and first["more_body"] and not last["more_body"]
    assert [word in last["body"] for word in (b"two", b'"stop"', b'"usage"', b"[DONE]")] == [True] * 4
    assert [message.get("more_body", False) for message in ordinary.sent] == [False, True, True, False]
    assert bench.record(direct).tokens == bench.record(ordinary).tokens
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("seed", range(8))
async def test_a_stream_torn_anywhere_is_the_same_either_way(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    places = sorted(chance.sample(range(1, len(WHOLE)), 25))
    reads = [WHOLE[start:end] for start, end in zip([0, *places], [*places, len(WHOLE)], strict=True)]
    async with FaultyUpstream(in_reads(*reads)) as upstream:
        offer(bench, upstream.target())
        direct, ordinary = await ask(bench), await ask(bench, is_direct=False)
    assert without_id(direct) == without_id(ordinary)
    assert [event["choices"][0]["delta"].get("content") for event in direct.events[: len(TEXTS)]] == TEXTS
    assert bench.record(direct).tokens == bench.record(ordinary).tokens


async def test_output_without_usage_is_counted_the_same_either_way(bench: Bench) -> None:
    async with FaultyUpstream(in_reads(*map(piece, TEXTS), STOP.encode(), b"data: [DONE]\n\n")) as upstream:
        offer(bench, upstream.target())
        direct, ordinary = await ask(bench), await ask(bench, is_direct=False)
    assert bench.record(direct).tokens == bench.record(ordinary).tokens
    assert bench.record(direct).estimated


async def test_what_cannot_be_sent_at_once_waits_its_turn_in_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"word{number} " for number in range(60)]
    chance, told = random.Random(3), [False]

    def is_ready(_writer: CallClient) -> bool:
        told[0] = chance.random() < 0.5
        return told[0]

    def write(writer: CallClient, part: bytes) -> None:
        assert told[0]
        writer.call.sent.append({"body": part})

    monkeypatch.setattr(CallClient, "is_ready", property(is_ready, lambda _writer, _value: None))
    monkeypatch.setattr(CallClient, "write", write)
    async with FaultyUpstream(in_reads(*map(piece, texts), STOP.encode(), USAGE.encode())) as upstream:
        offer(bench, upstream.target())
        call = await ask(bench)
    assert [event["choices"][0]["delta"].get("content") for event in call.events[: len(texts)]] == texts
    assert call.events[-1] == "[DONE]"


async def test_a_mistake_of_ours_while_a_piece_is_sent_is_told_as_such(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = CallClient.write

    def fail(writer: CallClient, part: bytes) -> None:
        if writer.writes == 1:  # the first part, and the last, are sent by who awaited them
            writer.writes += 1
            raise RuntimeError("a mistake")
        write(writer, part)

    monkeypatch.setattr(CallClient, "write", fail)
    async with FaultyUpstream(in_reads(*map(piece, TEXTS), STOP.encode(), USAGE.encode())) as upstream:
        offer(bench, upstream.target())
        call = await ask(bench)
    assert call.events[-1]["error"]["code"] == "internal_error"
    assert bench.record(call).outcome is Outcome.FAILED
    assert await nothing_is_held(bench, empty_store)


async def test_only_who_waits_for_more_has_it_taken_away() -> None:
    response = UpstreamResponse(cast(Any, None), 200, [])
    offered: list[bytes] = []

    def take(part: bytes) -> bool:
        offered.append(part)
        return part != b"c"

    response.taker = take
    response.feed(b"a")
    assert await response.read_some() == b"a" and offered == []
    reading = asyncio.create_task(response.read_some())
    await asyncio.sleep(0)
    for part in (b"b", b"c", b"d"):
        response.feed(part)
    assert await reading == b"cd" and offered == [b"b", b"c"]


# A whole server, with sockets on both sides.


@asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[int]:
    """The gateway behind the server that `crun.serve` starts; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(bench.app, http=GatewayProtocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server._serve(sockets=[listener]))
        port: int = listener.getsockname()[1]
        try:
            yield port
        finally:
            server.should_exit = True
            await running


async def connected(bench: Bench, port: int, *, receive_buffer: int = 0) -> tuple[asyncio.StreamReader, Any]:
    """A client that has sent its request."""
    client = socket.socket()
    client.setblocking(False)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=client, limit=4_096)
    body = orjson.dumps(BODY)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bench.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    return reader, writer


async def closed_record(bench: Bench) -> Any:
    async with asyncio.timeout(20):
        while not (ends := [entry for entry in bench.journal() if hasattr(entry, "outcome")]):  # noqa: ASYNC110 - the journal is a file
            await asyncio.sleep(0.01)
    (end,) = ends
    return end


async def test_a_whole_stream_over_a_real_server_is_framed_as_http_wants_it(bench: Bench) -> None:
    async with (
        FaultyUpstream(in_reads(*map(piece, TEXTS), STOP.encode(), USAGE.encode())) as upstream,
        served(bench) as port,
    ):
        offer(bench, upstream.target())
        reader, writer = await connected(bench, port)
        await reader.readuntil(b"\r\n\r\n")
        events = b""
        while size := int(await reader.readline(), 16):
            events += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        writer.close()
    assert events.count(b'"content":') == len(TEXTS) and events.endswith(b"data: [DONE]\n\n")


async def test_a_client_that_leaves_in_the_middle_ends_the_upstream_and_the_record_once(
    bench: Bench, empty_store: Any
) -> None:
    async with FaultyUpstream(saying()) as upstream, served(bench) as port:
        upstream.behaviour = in_reads(*map(piece, TEXTS), then=upstream.hang)
        offer(bench, upstream.target())
        reader, writer = await connected(bench, port)
        await reader.readuntil(b'"content":"ends"')
        writer.transport.abort()
        end = await closed_record(bench)
        async with asyncio.timeout(10):
            while not upstream.hung_up:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
    assert (end.outcome, end.error_code, end.estimated) == (Outcome.CANCELLED, "client_closed", True)
    assert end.tokens.output == sum(max(1, len(text.split())) for text in TEXTS)
    assert await nothing_is_held(bench, empty_store)


async def test_a_client_that_stops_reading_stops_its_upstream_and_is_cut(
    bench: Bench, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "configured_limits", lambda: [60.0, 60.0, 60.0, 1.0])
    sent = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD)
        part = chunk(piece("x" * 8_000))
        while True:
            writer.write(part)
            sent += len(part)
            await writer.drain()

    async with FaultyUpstream(pour) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await connected(bench, port, receive_buffer=4_096)
        await reader.readuntil(b'"content":"xxx')
        end = await closed_record(bench)
        writer.transport.abort()
    assert (end.outcome, end.error_code) == (Outcome.CANCELLED, "client_closed")
    assert 0 < end.tokens.output < 4_000
    assert sent < 32 << 20  # what the kernel's buffers hold, and not all that the upstream had
    assert await nothing_is_held(bench, empty_store)
