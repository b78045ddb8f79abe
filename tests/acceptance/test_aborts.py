"""Clients that leave at any moment: nothing leaks, the upstream is let go, what reached it has exactly one record."""

import asyncio
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import orjson
import pytest

from apps.core.ids import new_id
from crun.sandbox.truth import TruthEntry
from tests.acceptance.asking import caller
from tests.acceptance.installing import Installation
from tests.acceptance.processes import connections, descriptors, rss_bytes
from tests.acceptance.records import (
    Record,
    cost_usd,
    difference,
    nanos,
    records_since,
    rollup_differences,
    settled_records,
)
from tests.acceptance.scale import figure, sized, within
from tests.acceptance.upstream import TruthUpstream, model

pytestmark = [pytest.mark.installation, pytest.mark.timeout(900)]

ABORTS = sized(1_000, 10_000)
AT_ONCE = 100
LONGEST_PATIENCE_S = 0.4
SLOW = {"first_byte_delay_ms": 60, "chunks": 30, "chunk_delay_ms": 10}
LONG = {"output": "x" * 2_000, "chunks": 8_000}  # 17 MB as a stream: no buffer holds it
RST = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
GROWTH_BYTES = 48 << 20
SETTLED_WITHIN_S = 30.0
LET_GO_WITHIN_S = 10.0  # the installation's CRUN_CLIENT_WRITE_TIMEOUT_S is 3


def _request(installation: Installation, **fields: object) -> bytes:
    body = orjson.dumps({"model": "truth-echo", "messages": [{"role": "user", "content": "a b c d"}], **fields})
    head = (
        "POST /api/v1/chat/completions HTTP/1.1\r\nhost: crun\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {installation.api_key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _leave_early(installation: Installation, chance: random.Random) -> int:
    """One request whose client is gone at a random moment, by FIN or RST; how many bytes it had got."""
    request = _request(installation, stream=chance.random() < 0.7, sandbox=SLOW)
    if chance.random() < 0.1:
        request = request[: chance.randrange(len(request))]  # not even the request is whole
    reader, writer = await asyncio.open_connection("127.0.0.1", int(installation.url.rpartition(":")[2]))
    if chance.random() < 0.5:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    got = 0
    try:
        writer.write(request)
        async with asyncio.timeout(chance.random() * LONGEST_PATIENCE_S):
            while part := await reader.read(65_536):
                got += len(part)
    except TimeoutError:
        pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return got


async def _leave_all(installation: Installation, count: int) -> int:
    """`count` clients that leave; how many had got some bytes."""
    chance, free = random.Random(4711), asyncio.Semaphore(AT_ONCE)

    async def one() -> int:
        async with free:
            return await _leave_early(installation, chance)

    return sum(got > 0 for got in await asyncio.gather(*(one() for _ in range(count))))


async def _warm(installation: Installation) -> None:
    async with caller(installation) as asking:
        answers = await asyncio.gather(*(asking.ask("truth-echo", stream=True) for _ in range(AT_ONCE)))
    assert all(answer.is_whole for answer in answers)


class Held:
    """What each worker holds now: descriptors that are no connections to the upstream, those connections, memory."""

    def __init__(self, installation: Installation, truth: TruthUpstream) -> None:
        workers = installation.workers()
        self.upstream = {pid: len(connections(pid, to_port=truth.port)) for pid in workers}
        self.others = {pid: len(descriptors(pid)) - self.upstream[pid] for pid in workers}
        self.rss = {pid: rss_bytes(pid) for pid in workers}

    def __str__(self) -> str:
        rss = [f"{size >> 20} MiB" for size in self.rss.values()]
        return f"descriptors {list(self.others.values())} + upstream {list(self.upstream.values())}, RSS {rss}"


def _released(installation: Installation, truth: TruthUpstream, before: Held) -> Held:
    """What the workers hold once descriptors and upstream connections are back to what they were."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while True:
        now = Held(installation, truth)
        grown = {pid: now.others[pid] - before.others[pid] for pid in now.others}
        left = {pid: now.upstream[pid] - before.upstream[pid] for pid in now.upstream}
        if max(grown.values()) <= 3 and max(left.values()) <= 3:
            return now
        assert time.monotonic() < deadline, f"held before: {before}, now: {now}"
        time.sleep(0.2)


def test_clients_that_leave_at_random_moments_leave_nothing_behind(
    installation: Installation, truth: TruthUpstream
) -> None:
    asyncio.run(_warm(installation))
    truth.ended_since(0)
    workers, before = installation.workers(), Held(installation, truth)
    mark, number = new_id("req"), truth.last_number()
    began = time.monotonic()
    served = asyncio.run(_leave_all(installation, ABORTS))
    took_s = time.monotonic() - began
    told = truth.ended_since(number)
    after = _released(installation, truth, before)
    figure("aborts", f"{ABORTS} in {took_s:.1f} s, {served} had got bytes; before: {before}; after: {after}")
    assert installation.workers() == workers
    for pid in workers:
        assert after.rss[pid] - before.rss[pid] < GROWTH_BYTES
    records = settled_records(installation, mark, told)
    _check_records(records, told)
    assert rollup_differences(installation) == []
    asyncio.run(_warm(installation))


def _check_records(records: dict[str, Record], told: dict[str, TruthEntry]) -> None:
    """One record for each request that reached the upstream. A few were sent and closed before it looked: no output."""
    assert set(told) <= set(records)
    figure("aborts", f"upstream saw {dict(Counter(entry.outcome for entry in told.values()))}")
    figure("aborts", f"records {dict(Counter(record.status for record in records.values()))}")
    for name, record in records.items():
        assert record.cost_nanos == nanos(cost_usd(record))
        if name not in told:
            assert (record.status, record.completion_tokens) == ("cancelled", 0)
        elif record.status == "completed":
            assert told[name].outcome == "complete"
            assert difference(record, told[name]) == {}
        else:
            assert record.status == "cancelled"
            assert record.error_code == "client_closed"
            assert record.estimated or told[name].outcome == "complete"
            assert record.output_tokens <= told[name].tokens or not told[name].stream
    gone = sum(entry.outcome == "client_gone" for entry in told.values())
    assert gone > ABORTS / 4
    unseen = [record for name, record in records.items() if name not in told]
    figure(
        "aborts", f"{len(unseen)} never seen upstream, {sum(record.cost_nanos > 0 for record in unseen)} of them billed"
    )
    assert len(unseen) < ABORTS / 5


def test_a_client_that_stops_reading_and_leaves_pays_for_what_the_upstream_had_sent(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    async def read_a_little_and_leave() -> None:
        async with _reading_a_little(installation) as (_, writer):
            await asyncio.sleep(1)
            writer.transport.abort()

    asyncio.run(read_a_little_and_leave())
    _check_paid(installation, truth, mark)


def test_a_client_that_never_reads_on_is_let_go_after_a_while_and_pays_for_what_the_upstream_had_sent(
    installation: Installation, truth: TruthUpstream, mark: tuple[str, int]
) -> None:
    port = int(installation.url.rpartition(":")[2])

    async def read_a_little_and_stay() -> float:
        """How long the gateway held on to the connection, in s."""
        async with _reading_a_little(installation) as (_, writer):
            own_port, began = writer.get_extra_info("sockname")[1], time.monotonic()
            while time.monotonic() - began < within(LET_GO_WITHIN_S):
                if not any(own_port in connections(pid, from_port=port) for pid in installation.workers()):
                    break
                await asyncio.sleep(0.1)
            return time.monotonic() - began

    held_s = asyncio.run(read_a_little_and_stay())
    figure("a client that never reads on", f"let go after {held_s:.1f} s")
    assert held_s < within(LET_GO_WITHIN_S)
    _check_paid(installation, truth, mark)


@asynccontextmanager
async def _reading_a_little(
    installation: Installation,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A long stream of which only the beginning is read; small buffers."""
    port = int(installation.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4_096)
    try:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        writer.write(_request(installation, stream=True, sandbox=LONG))
        await reader.readuntil(b'"content":"xxx')
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _check_paid(installation: Installation, truth: TruthUpstream, mark: tuple[str, int]) -> None:
    """The one record of the client that stopped reading."""
    [(name, told)] = truth.ended_since(mark[1]).items()
    record = settled_records(installation, mark[0], [name])[name]
    figure("a client that stops reading", f"upstream sent {told.tokens} tokens, billed {record.output_tokens}")
    assert (record.status, told.outcome) == ("cancelled", "client_gone")
    assert 0 < record.output_tokens <= told.tokens < LONG["chunks"]


def test_a_client_that_leaves_before_its_upstream_could_be_reached_pays_nothing(
    installation: Installation, mark: tuple[str, int]
) -> None:
    with _deaf_port() as port:
        provider = f'  - {{id: deaf, dialect: openai, base_url: "http://127.0.0.1:{port}/v1"}}'
        offered = model("truth-deaf", "sandbox-echo").replace("provider: truth", "provider: deaf")
        installation.import_catalog("\n".join(["providers:", provider, "models:", offered]))

        async def leave() -> None:
            async with caller(installation) as asking, asyncio.timeout(1.5):
                for _ in range(100):  # until the model is on offer
                    assert (await asking.ask("truth-deaf")).status == 404

        with pytest.raises(TimeoutError):
            asyncio.run(leave())
        deadline = time.monotonic() + 20
        while not (found := records_since(installation, mark[0], provider="deaf")):
            assert time.monotonic() < deadline, "the request has no record"
            time.sleep(0.1)
    [record] = found.values()
    assert (record.status, record.prompt_tokens, record.cost_nanos) == ("cancelled", 0, 0)


@contextmanager
def _deaf_port() -> Iterator[int]:
    """A port whose queue is full: who connects waits."""
    with socket.socket() as listener, ExitStack() as queue:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
