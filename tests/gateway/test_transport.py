"""The HTTP client of the data path against servers that behave badly, byte by byte over real sockets."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.connection import (
    MAX_OVERHEAD_BYTES,
    MAX_UNREAD_BYTES,
    AnswerTooLarge,
    Connection,
    UpstreamBroken,
    UpstreamResponse,
)
from apps.gateway.providers.transport import Transport, UpstreamUnreachable
from tests.api.certificates import authority, server_context

pytestmark = pytest.mark.asyncio
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\nx-trailer: 1\r\n\r\n"
Serve = Callable[["Peer"], Awaitable[None]]


@dataclass
class Peer:
    """One connection as the server sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int

    async def request(self) -> bytes:
        """Head and body of the next request. Raises IncompleteReadError at the end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head + await self.reader.readexactly(length)

    async def say(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)


@dataclass
class Server:
    """A listening server with what it was asked."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: int = 0

    def url(self, path: str = "/v1/chat", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server that treats each connection with `serve`."""
    seen = Server(0)
    tasks = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await serve(Peer(reader, writer, seen.connections))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # its client left, or the test is over
        finally:
            seen.ended += 1
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)


def answering(*answers: bytes) -> Serve:
    """Serve these answers in turn on each connection, the last one for ever."""

    async def serve(peer: Peer) -> None:
        for number in range(100):
            await peer.request()
            await peer.say(answers[min(number, len(answers) - 1)])

    return serve


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[Transport]:
    client = Transport(connect_timeout_s=5.0)
    yield client
    await client.close()


async def post(transport: Transport, url: str, body: bytes = b"{}", **headers: str) -> UpstreamResponse:
    request = UpstreamRequest(url=url, headers={"content-type": "application/json", **headers}, body=body)
    async with asyncio.timeout(20):
        return await transport.post(request, on_send=lambda: None)


async def read(transport: Transport, url: str, body: bytes = b"{}") -> bytes:
    response = await post(transport, url, body)
    try:
        async with asyncio.timeout(20):
            return await response.read()
    finally:
        response.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.002)


async def test_what_is_sent(transport: Transport) -> None:
    heard: list[bytes] = []

    async def serve(peer: Peer) -> None:
        heard.append(await peer.request())
        await peer.say(OK)

    async with serving(serve) as server:
        sent = []
        request = UpstreamRequest(url=server.url("/v1/a b/c?x=1"), headers={"x-one": "1"}, body=b'{"a":1}')
        response = await transport.post(request, on_send=lambda: sent.append(len(heard)))
        assert (response.status, response.header("content-type"), await response.read()) == (
            200,
            "application/json",
            b"hello",
        )
    assert heard == [
        b"POST /v1/a%20b/c?x=1 HTTP/1.1\r\nhost: 127.0.0.1:" + str(server.port).encode() + b"\r\n"
        b'content-length: 7\r\nx-one: 1\r\n\r\n{"a":1}'
    ]
    assert sent == [0]


async def test_one_connection_carries_many_requests_one_after_the_other(transport: Transport) -> None:
    async with serving(answering(OK, CHUNKED)) as server:
        assert [await read(transport, server.url()) for _ in range(20)] == [b"hello"] + [b"hello!"] * 19
        assert server.connections == 1
        assert transport.open_connections == 0
        await asyncio.gather(*(read(transport, server.url()) for _ in range(5)))
        assert 1 < server.connections <= 5


@given(cuts=st.lists(st.integers(1, len(CHUNKED) - 1), max_size=12), answer=st.sampled_from([OK, CHUNKED]))
@settings(max_examples=150, deadline=None)
async def test_any_split_of_the_bytes_is_the_same_answer(cuts: list[int], answer: bytes) -> None:
    freed: list[Connection] = []
    connection = Connection(on_free=freed.append, on_lost=lambda _: None)
    connection.connection_made(Silent())
    asking = asyncio.ensure_future(connection.ask(b"", b""))
    await asyncio.sleep(0)
    borders = sorted({0, len(answer), *(cut for cut in cuts if cut < len(answer))})
    for start, end in pairwise(borders):
        connection.data_received(answer[start:end])
    response = await asking
    assert await response.read() == (b"hello!" if answer is CHUNKED else b"hello")
    assert freed == [connection]


async def test_what_comes_in_one_read_goes_on_in_one_part() -> None:
    connection = Connection(on_free=lambda _: None, on_lost=lambda _: None)
    connection.connection_made(Silent())
    asking = asyncio.ensure_future(connection.ask(b"", b""))
    await asyncio.sleep(0)
    head, parts = CHUNKED.split(b"\r\n\r\n", 1)
    connection.data_received(head + b"\r\n\r\n")
    response = await asking
    taken: list[bytes] = []
    response.taker = lambda part: not taken.append(part)
    reading = asyncio.ensure_future(response.read_some())
    await asyncio.sleep(0)
    connection.data_received(b"3\r\none\r\n3\r\ntwo\r\n" + parts[:3])
    connection.data_received(parts[3:])
    assert taken == [b"onetwo", b"hello!"]
    assert await reading == b""


async def test_parts_before_what_is_no_http_are_given_before_the_error() -> None:
    connection = Connection(on_free=lambda _: None, on_lost=lambda _: None)
    connection.connection_made(Silent())
    asking = asyncio.ensure_future(connection.ask(b"", b""))
    await asyncio.sleep(0)
    connection.data_received(CHUNKED.split(b"1;x=y")[0] + b"no size\r\n")
    response = await asking
    assert await response.read_some() == b"hello"
    with pytest.raises(UpstreamBroken):
        await response.read_some()


class Silent(asyncio.Transport):
    """A transport that takes everything and says nothing."""

    def write(self, data: object) -> None:
        pass

    def abort(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
    ids=["early hints", "continue", "close", "until the end"],
)
async def test_unusual_answers_that_are_whole(transport: Transport, answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with serving(serve) as server:
        assert await read(transport, server.url()) == b"hello"
        await until(lambda: not any(transport._idle.values()))
        assert await read(transport, server.url()) == b"hello"
        assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n50\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
    ],
    ids=["length", "last chunk", "inside a chunk", "gzip without chunks", "no chunk size"],
)
async def test_an_answer_that_is_cut_never_looks_whole(transport: Transport, answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with serving(serve) as server:
        response = await post(transport, server.url())
        assert await response.read_some() == b"hello"
        with pytest.raises(UpstreamBroken):
            await response.read_some()
        response.close()
    assert transport.open_connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_OVERHEAD_BYTES + 1),
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3_000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"content-length: 0\r\n\r\n",
    ],
    ids=["nothing", "torn", "no HTTP", "two lengths", "lengths differ", "upgrade", "long", "only hints", "many"],
)
async def test_what_is_no_answer(transport: Transport, answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)

    async with serving(serve) as server:
        with pytest.raises(UpstreamBroken):
            await post(transport, server.url())
    assert transport.open_connections == 0


@pytest.mark.parametrize("after", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", b"\x00garbage"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_bytes_behind_an_answer_never_reach_the_next_caller(
    transport: Transport, after: bytes, at_once: bool
) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        if at_once:
            await peer.say(OK + after)
        else:
            await peer.say(OK)
            await asyncio.sleep(0.01)
            await peer.say(after)
        await peer.reader.read()

    async with serving(serve) as server:
        assert await read(transport, server.url()) == b"hello"
        await until(lambda: server.ended == 1)
        assert await read(transport, server.url()) == b"hello"
        assert server.connections == 2


async def test_who_leaves_takes_the_connection_along(transport: Transport) -> None:
    """Before the headers, in the middle of an answer: nobody gets what was meant for somebody else."""
    begun = asyncio.Event()

    async def serve(peer: Peer) -> None:
        request = await peer.request()
        if b"slow" in request:
            begun.set()
            await peer.reader.read()  # until the client hangs up
        elif b"half" in request:
            await peer.say(OK[:-2])
            await peer.reader.read()
        else:
            await peer.say(OK)
            await peer.reader.read()

    async with serving(serve) as server:
        asking = asyncio.create_task(post(transport, server.url(), b"slow"))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        response = await post(transport, server.url(), b"half")
        assert await response.read_some() == b"hel"
        response.close()
        with pytest.raises(UpstreamBroken):
            await response.read_some()
        await until(lambda: server.ended == 2)
        assert await read(transport, server.url(), b"last") == b"hello"
        assert (server.connections, transport.open_connections) == (3, 0)


async def test_random_cancels_never_mix_answers_up(transport: Transport) -> None:
    """Each answer says for whom it is."""

    async def serve(peer: Peer) -> None:
        while True:
            name = (await peer.request()).rpartition(b"\r\n\r\n")[2]
            await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(name), name[:3])
            await asyncio.sleep(0.001 * (name[-1] % 3))
            await peer.say(name[3:])

    async with serving(serve) as server:

        async def ask(number: int) -> bool:
            name = b"request %d" % number
            try:
                async with asyncio.timeout(0.0005 * (number % 13)):
                    return await read(transport, server.url(), name) == name
            except TimeoutError:
                return True

        for batch in range(40):
            assert all(await asyncio.gather(*(ask(batch * 25 + number) for number in range(25))))
        assert await read(transport, server.url(), b"the last") == b"the last"
        assert transport.open_connections == 0


async def test_a_large_body_waits_for_a_server_that_reads_slowly(transport: Transport) -> None:
    body, may_read = bytes(range(256)) * (20 << 12), asyncio.Event()
    heard: list[bytes] = []

    async def serve(peer: Peer) -> None:
        await may_read.wait()
        heard.append((await peer.request()).partition(b"\r\n\r\n")[2])
        await peer.say(OK)

    async with serving(serve) as server:
        asking = asyncio.create_task(read(transport, server.url(), body))
        await until(lambda: transport.open_connections == 1)
        may_read.set()
        assert await asking == b"hello"
        assert heard == [body]


async def test_an_answer_before_the_whole_body_ends_the_sending_and_the_connection(transport: Transport) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

    async def serve(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(refusal)
        await asyncio.sleep(0.2)

    async with serving(serve) as server:
        response = await post(transport, server.url(), bytes(30 << 20))
        assert (response.status, await response.read()) == (413, b"no")
        response.close()
        await until(lambda: transport.open_connections == 0)
        assert (await post(transport, server.url())).status == 413
        assert server.connections == 2


async def test_an_answer_that_nobody_takes_is_not_read(transport: Transport) -> None:
    written = 0

    async def serve(peer: Peer) -> None:
        nonlocal written
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
        for _ in range(1024):
            await peer.say(bytes(64 << 10))
            written += 64 << 10

    async with serving(serve) as server:
        response = await post(transport, server.url())
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.2)
        assert written < 32 << 20
        size = 0
        while part := await response.read_some():
            assert len(part) <= MAX_UNREAD_BYTES + (1 << 20)
            size += len(part)
        assert size == 64 << 20
        await until(lambda: not any(transport._idle.values()))
        with pytest.raises(AnswerTooLarge):
            await (await post(transport, server.url())).read(1 << 20)


async def test_idle_connections_are_closed_after_a_while(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.gateway.providers.transport.KEEP_ALIVE_S", 0.05)
    async with serving(answering(OK)) as server:
        assert await read(transport, server.url()) == b"hello"
        await until(lambda: server.ended == 1)
        assert await read(transport, server.url()) == b"hello"
        assert server.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used(transport: Transport) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)

    async with serving(serve) as server:
        for _ in range(5):
            assert await read(transport, server.url()) == b"hello"
            await until(lambda: not any(transport._idle.values()))
        assert server.connections == 5


async def test_nobody_there(transport: Transport) -> None:
    sent: list[int] = []
    async with serving(answering(OK)) as server:
        pass
    for url in (server.url(), "http://nowhere.invalid/v1", "ftp://127.0.0.1/", "http:///x", "http://127.0.0.1:99999/"):
        with pytest.raises(UpstreamUnreachable):
            await transport.post(UpstreamRequest(url=url, headers={}, body=b""), on_send=lambda: sent.append(1))
    assert sent == []


@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b", "\u0100"])
async def test_a_header_cannot_bring_others(transport: Transport, value: str) -> None:
    async with serving(answering(OK)) as server:
        with pytest.raises(UpstreamUnreachable) as refused:
            await post(transport, server.url(), authorization=value)
        assert value not in str(refused.value)
        assert server.connections == 0


async def test_tls_is_checked(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = authority(), authority()
    async with serving(answering(OK), server_context(ours, "localhost", tmp_path)) as server:
        for trusted, name in ((other, "localhost"), (ours, "127.0.0.1")):
            monkeypatch.setattr(transport, "_tls", trusted.client_context())
            with pytest.raises(UpstreamUnreachable):
                await post(transport, f"https://{name}:{server.port}/")
        monkeypatch.setattr(transport, "_tls", ours.client_context())
        assert await read(transport, f"https://localhost:{server.port}/") == b"hello"
        with pytest.raises(UpstreamBroken):
            await post(transport, server.url())
