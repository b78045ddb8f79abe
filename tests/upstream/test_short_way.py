"""What the server does beside ASGI for the data path: bodies, whole answers, clients that leave. Over real sockets."""

import asyncio
import gc
import socket
from typing import Any, cast

import orjson
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from apps.usage.contracts import Outcome
from crun.http_protocol import JOINED_BYTES, CycleClient, LeanEvent
from tests.gateway.conftest import Bench
from tests.upstream.faulty import ANSWER, FaultyUpstream
from tests.upstream.test_direct_streams import closed_record, served
from tests.upstream.test_faults_before_answer import CHAT, nothing_is_held, offer

pytestmark = pytest.mark.asyncio
BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}]})


def head(bench: Bench, start: str = f"POST {CHAT} HTTP/1.1", **fields: str) -> bytes:
    named = {"host": "x", "authorization": f"Bearer {bench.key}", **fields}
    return "\r\n".join(
        [start, *(f"{name.replace('_', '-')}: {value}" for name, value in named.items()), "\r\n"]
    ).encode()


async def answered(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of the next answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
    pairs = [line.split(": ", 1) for line in lines[1:]]
    assert len({name for name, _ in pairs}) == len(pairs)
    headers = dict(map(tuple, pairs))  # type: ignore[arg-type]  # pairs
    return lines[0], headers, await reader.readexactly(int(headers["content-length"]))


async def test_answers_of_one_connection_follow_each_other(bench: Bench, empty_store: Any) -> None:
    async with FaultyUpstream(ANSWER) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = head(bench, content_length=str(len(BODY))) + BODY
        for request in (whole, whole * 2):  # the last two at once
            writer.write(request)
        for _ in range(3):
            status, headers, body = await answered(reader)
            assert status == "HTTP/1.1 200 OK" and orjson.loads(body)["choices"][0]["message"]["content"] == "fine"
            assert headers["content-type"] == "application/json" and headers["x-crun-cost"] and headers["date"]
        writer.write(head(bench, "GET /api/v1/nothing HTTP/1.1"))
        assert (await answered(reader))[0] == "HTTP/1.1 404 Not Found"
        writer.write(head(bench, "HEAD /api/v1/models HTTP/1.1") + head(bench, "GET /api/v1/key HTTP/1.0"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        status, headers, body = await answered(reader)  # right behind that head: it had no body
        assert (status, headers["connection"]) == ("HTTP/1.1 200 OK", "close") and orjson.loads(body)["data"]
        assert await reader.read() == b""
        writer.close()
    assert await nothing_is_held(bench, empty_store)


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_that_comes_in_pieces_is_waited_for(bench: Bench, is_chunked: bool) -> None:
    async with FaultyUpstream(ANSWER) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        fields = {"transfer_encoding": "chunked"} if is_chunked else {"content_length": str(len(BODY))}
        writer.write(head(bench, expect="100-continue", **fields))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for start in range(0, len(BODY), 20):
            piece = BODY[start : start + 20]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            await asyncio.sleep(0.005)
        writer.write(b"0\r\n\r\n" if is_chunked else b"")
        assert (await answered(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_client_that_leaves_before_its_answer_ends_the_upstream_and_the_record_once(
    bench: Bench, empty_store: Any, size: int
) -> None:
    """Also after a body for which the server had stopped to read the connection."""
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * size}]})
    async with FaultyUpstream(ANSWER) as upstream, served(bench) as port:
        upstream.behaviour = upstream.hang
        offer(bench, upstream.target())
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(bench, content_length=str(len(body))) + body)
        async with asyncio.timeout(20):
            while not upstream.requests:  # noqa: ASYNC110 - the upstream sees it when it does
                await asyncio.sleep(0.01)
            writer.close()
            end = await closed_record(bench)
            while not upstream.hung_up:  # noqa: ASYNC110 - the same
                await asyncio.sleep(0.01)
    assert (end.outcome, end.error_code) == (Outcome.CANCELLED, "client_closed")
    assert await nothing_is_held(bench, empty_store)


async def test_a_header_that_would_end_its_line_is_not_sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.views.asking.format_usd", lambda _: "1\r\nx-forged: 1")
    refused = []

    def answer(client: CycleClient, *arguments: Any) -> bool:
        refused.append(is_sent := real(client, *arguments))
        return is_sent

    real = CycleClient.answer
    monkeypatch.setattr(CycleClient, "answer", answer)
    async with FaultyUpstream(ANSWER) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(bench, content_length=str(len(BODY))) + BODY)
        assert b"forged" not in await reader.read()
        writer.close()
    assert refused == [False]


async def test_an_answer_to_a_client_that_left_is_for_nobody(bench: Bench) -> None:
    async with served(bench) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head(bench, "GET /api/v1/models HTTP/1.1") * 3)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(bench, "GET /api/v1/key HTTP/1.1"))
        assert (await answered(reader))[0] == "HTTP/1.1 200 OK"
        writer.close()


class FakeCycle:
    """What an answer needs of uvicorn's: its connection keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.transport = self
        self.flow = self
        self.message_event = LeanEvent()
        self.write = self.written.append
        self.scope = {"method": "GET"}
        self.default_headers = [(b"date", b"today")]
        self.response_started = self.response_complete = self.disconnected = self.write_paused = False
        self.waiting_for_100_continue = False
        self.keep_alive = True

    def on_response(self) -> None:
        """Nobody waits for it."""


@pytest.mark.parametrize(("size", "writes"), [(0, 1), (JOINED_BYTES, 1), (JOINED_BYTES + 1, 2)])
async def test_a_whole_answer_is_one_write_unless_it_is_large(size: int, writes: int) -> None:
    cycle = FakeCycle()
    client = CycleClient(cast(RequestResponseCycle, cycle))
    assert client.answer(200, [(b"x", b"y")], b"z" * size)
    assert b"".join(cycle.written) == b"HTTP/1.1 200 OK\r\ndate: today\r\nx: y\r\n\r\n" + b"z" * size
    assert len(cycle.written) == writes


async def test_the_head_of_a_stream_leaves_with_its_first_part_or_before_it_is_waited_for() -> None:
    head = b"HTTP/1.1 200 OK\r\ndate: today\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"
    cycles = [FakeCycle() for _ in range(3)]
    clients = [CycleClient(cast(RequestResponseCycle, cycle)) for cycle in cycles]
    for client, cycle in zip(clients, cycles, strict=True):
        assert client.begin([(b"x", b"y")]) and client.is_ready and not cycle.written
    clients[0].write(b"one")
    clients[1].flush()
    for _ in range(2):
        for client in clients:
            client.flush()
        await asyncio.sleep(0)
    clients[0].write(b"two")
    clients[2].write(b"one")
    assert cycles[0].written == [head + b"3\r\none\r\n", b"3\r\ntwo\r\n"]
    assert cycles[1].written == [head]
    assert cycles[2].written == [head, b"3\r\none\r\n"]
    gone = FakeCycle()
    client = CycleClient(cast(RequestResponseCycle, gone))
    assert client.begin([]) and not client.begin([])
    gone.disconnected = True
    await asyncio.sleep(0)
    assert not gone.written and not client.is_ready
    for field in ("disconnected", "write_paused", "response_started"):
        busy = FakeCycle()
        setattr(busy, field, True)
        assert not CycleClient(cast(RequestResponseCycle, busy)).begin([]) and not busy.written


async def test_a_request_leaves_no_cycle_behind(bench: Bench) -> None:
    async with FaultyUpstream(ANSWER) as upstream, served(bench) as port:
        offer(bench, upstream.target())
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = head(bench, content_length=str(len(BODY))) + BODY
        try:
            for number in range(6):
                writer.write(whole)
                await answered(reader)
                if number == 2:
                    gc.collect()
                    gc.disable()
            clients = [each for each in gc.get_objects() if isinstance(each, CycleClient)]
            assert len(clients) == 1  # that of the last request
        finally:
            gc.enable()
        writer.close()
