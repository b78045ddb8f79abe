"""A connection that carries one request after the other: nothing of one of them touches the next."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from threading import Event, Thread

import pytest
import pytest_asyncio

from apps.gateway.providers.connection import MAX_UNREAD_BYTES, WRITE_BYTES, Connection, UpstreamBroken
from apps.gateway.providers.transport import Transport
from tests.gateway.test_transport import OK, Silent, read

pytestmark = pytest.mark.asyncio
FORGED = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n"


@pytest_asyncio.fixture
async def transport() -> AsyncIterator[Transport]:
    client = Transport(connect_timeout_s=5.0)
    yield client
    await client.close()


@pytest.mark.parametrize("behind", [FORGED, b""], ids=["an answer that nobody asked for", "the end"])
async def test_what_came_while_the_loop_was_busy_is_no_answer_to_the_next_request(
    transport: Transport, behind: bytes
) -> None:
    may_go_on, has_come = Event(), Event()
    peers = []

    def serve(server: socket.socket) -> None:
        with suppress(OSError):  # the test is over
            while True:
                peer, _ = server.accept()
                peers.append(peer)
                peer.recv(65_536)
                peer.sendall(OK)
                may_go_on.wait(10)
                peer.sendall(behind) if behind else peer.shutdown(socket.SHUT_WR)
                has_come.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/chat"
        assert await read(transport, url) == b"hello"
        may_go_on.set()
        assert has_come.wait(10)  # the loop stands still
        assert await read(transport, url) == b"hello"
        server.shutdown(socket.SHUT_RDWR)
        for peer in peers:
            peer.close()


class Watched(Silent):
    """Notes what is done to the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def write(self, data: object) -> None:
        self.calls.append("write")

    def abort(self) -> None:
        self.calls.append("abort")

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")


def connected() -> tuple[Connection, Watched]:
    connection, wire = Connection(on_free=lambda _: None, on_lost=lambda _: None), Watched()
    connection.connection_made(wire)
    return connection, wire


async def test_who_leaves_when_all_of_the_answer_is_there_leaves_the_next_request_alone() -> None:
    connection, wire = connected()
    first = asyncio.create_task(connection.ask(b"", b""))
    await asyncio.sleep(0)
    connection.data_received(OK)
    first.cancel()
    second = connection.ask(b"", b"")  # it takes the connection before the first one has its turn
    second.send(None)
    with pytest.raises(asyncio.CancelledError):
        await first
    assert "abort" not in wire.calls
    connection.data_received(FORGED.replace(b"forged", b"second"))
    with pytest.raises(StopIteration) as answered:
        second.send(None)
    assert await answered.value.value.read() == b"second"


async def test_who_reads_late_does_not_open_the_sluice_of_the_next_answer() -> None:
    connection, wire = connected()

    async def ask() -> object:
        return await connection.ask(b"", b"")

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    connection.data_received(LONG + bytes(300_000))
    first = await asking
    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    connection.data_received(LONG + bytes(MAX_UNREAD_BYTES + 1))
    second = await asking
    assert wire.calls[-1] == "pause"
    assert len(await first.read_some()) == 300_000  # type: ignore[attr-defined]  # a response
    assert wire.calls[-1] == "pause"
    assert len(await second.read_some()) == MAX_UNREAD_BYTES + 1  # type: ignore[attr-defined]  # as above
    assert wire.calls[-1] == "resume"


async def test_a_body_is_written_no_further_than_to_the_end_of_its_connection() -> None:
    connection, wire = connected()
    asking = asyncio.create_task(connection.ask(b"", bytes(20 * WRITE_BYTES)))
    connection.pause_writing()
    await asyncio.sleep(0)
    connection.connection_lost(None)
    with pytest.raises(UpstreamBroken):
        await asking
    assert wire.calls.count("write") == 2  # the head and one piece
