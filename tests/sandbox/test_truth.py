"""The truth log: what it says, in which order it becomes durable, what a kill leaves behind."""

import asyncio
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from crun.sandbox.answers import Usage
from crun.sandbox.server import Options, Sandbox
from crun.sandbox.steps import Outcome
from crun.sandbox.truth import Ticket, TruthLog, read_truth, wait_for_ends

Ask = Callable[..., Any]
ECHO = "one two three four five"


@pytest.fixture
def entry_of(sandbox: Any, eventually: Any) -> Callable[[str], Any]:
    """The ended entry of a request id."""

    def find(request_id: str) -> Any:
        def ended() -> Any:
            entry = read_truth(sandbox.truth).get(request_id)
            return entry if entry is not None and entry.outcome is not None else None

        return eventually(ended)

    return find


def test_a_whole_answer_is_one_request_and_one_end(ask: Ask, entry_of: Any) -> None:
    ask(
        "sandbox-echo",
        headers={"x-request-id": "req_whole"},
        sandbox={"cached_tokens": 2, "reasoning_tokens": 3},
    )
    entry = entry_of("req_whole")
    assert (entry.model, entry.stream, entry.outcome) == ("sandbox-echo", False, "complete")
    assert (entry.prompt_tokens, entry.completion_tokens, entry.chunks) == (5, 8, 0)
    assert (entry.cached_tokens, entry.reasoning_tokens, entry.usage_sent) == (2, 3, True)


def test_a_stream_has_a_line_for_each_chunk(stream: Ask, entry_of: Any) -> None:
    stream("sandbox-echo", headers={"x-request-id": "req_stream"}, n=2)
    entry = entry_of("req_stream")
    assert (entry.stream, entry.outcome, entry.chunks, entry.tokens) == (True, "complete", 10, 10)
    assert (entry.completion_tokens, entry.usage_sent) == (10, True)


def test_lines_are_in_order_and_count_up(stream: Ask, entry_of: Any, sandbox: Any) -> None:
    stream("sandbox-echo", "a b", headers={"x-request-id": "req_lines"})
    entry_of("req_lines")
    lines = [orjson.loads(line) for line in sandbox.truth.read_bytes().splitlines()]
    mine = [line for line in lines if line["request_id"] == "req_lines"]
    assert [line["event"] for line in mine] == ["request", "chunk", "chunk", "end"]
    assert [(line["index"], line["tokens"]) for line in mine[1:3]] == [(0, 1), (1, 2)]
    assert len({line["n"] for line in mine}) == 1
    numbers = [line["n"] for line in lines if line["event"] == "request"]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("model", "outcome", "tokens", "usage_sent"),
    [
        ("sandbox-fault-cut-3", "cut", 3, False),
        ("sandbox-fault-reset-2", "cut", 2, False),
        ("sandbox-fault-refuse", "cut", 0, False),
        ("sandbox-fault-error-event-1", "error", 1, False),
        ("sandbox-fault-503", "error", 0, False),
        ("sandbox-fault-html", "error", 0, False),
        ("sandbox-fault-no-done", "complete", 5, True),
        ("sandbox-fault-negative-usage", "complete", 5, True),
        ("sandbox-fault-null-usage", "complete", 5, False),
        ("sandbox-fault-garbage", "complete", 5, True),
        ("sandbox-fault-torn", "complete", 5, True),
    ],
)
def test_a_fault_ends_as_it_was_on_the_wire(
    stream: Ask, entry_of: Any, model: str, outcome: str, tokens: int, usage_sent: bool
) -> None:
    stream(model, headers={"x-request-id": f"req_{model}"})
    entry = entry_of(f"req_{model}")
    assert (entry.outcome, entry.completion_tokens, entry.chunks) == (outcome, tokens, tokens)
    assert (entry.prompt_tokens, entry.usage_sent) == (5, usage_sent)


def test_a_cut_body_carried_no_tokens(ask: Ask, entry_of: Any) -> None:
    ask("sandbox-fault-cut-3", headers={"x-request-id": "req_cut_body"})
    entry = entry_of("req_cut_body")
    assert (entry.outcome, entry.completion_tokens, entry.usage_sent) == ("cut", 0, False)


def test_attempts_under_one_id_stay_apart(ask: Ask, entry_of: Any) -> None:
    for model in ("sandbox-fault-500", "sandbox-echo"):
        ask(model, headers={"x-request-id": "req_retried"})
        entry_of("req_retried")
    entry = entry_of("req_retried")
    assert (entry.attempts, entry.outcome, entry.earlier[0].outcome) == (2, "complete", "error")


def test_refused_requests_are_not_in_the_log(ask: Ask, entry_of: Any, sandbox: Any) -> None:
    ask("sandbox-echo", n=9, headers={"x-request-id": "req_bad"})
    ask("no-such-model", headers={"x-request-id": "req_unknown"})
    ask("sandbox-echo", headers={"x-request-id": "req_after"})
    entry_of("req_after")
    assert read_truth(sandbox.truth).keys().isdisjoint({"req_bad", "req_unknown"})


@pytest.mark.parametrize("by_reset", [False, True])
def test_a_client_that_hangs_up_stops_the_stream(sandbox: Any, entry_of: Any, by_reset: bool) -> None:
    request_id = f"req_gone_{by_reset}"
    connection = start_stream(sandbox.port, request_id, {"chunks": 10_000, "chunk_delay_ms": 5})
    received = connection.recv(65536)
    while received.count(b'"delta":{"content":"w') < 3:
        received += connection.recv(65536)
    if by_reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    entry = entry_of(request_id)
    assert entry.outcome == "client_gone"
    assert 3 <= entry.chunks == entry.tokens == entry.completion_tokens < 200
    assert not entry.usage_sent


def test_a_client_that_leaves_a_stall_is_gone(sandbox: Any, entry_of: Any) -> None:
    connection = start_stream(sandbox.port, "req_stalled", {}, model="sandbox-fault-stall")
    connection.close()
    assert entry_of("req_stalled").outcome == "client_gone"


def test_a_client_that_does_not_read_holds_its_stream_back(sandbox: Any, entry_of: Any, eventually: Any) -> None:
    word = "w" * 20_000
    script = {"output": word, "chunks": 400}
    connection = start_stream(sandbox.port, "req_slow", script, receive_buffer=4_096)
    seen: list[int] = []

    def stands_still() -> bool:
        seen.append(read_truth(sandbox.truth)["req_slow"].chunks if b"req_slow" in sandbox.truth.read_bytes() else 0)
        return len(seen) > 20 and seen[-20] == seen[-1] > 0

    eventually(stands_still)
    assert seen[-1] < 350
    received = sum(len(part) for part in iter(lambda: connection.recv(1 << 20), b""))
    connection.close()
    assert received > 8_000_000
    entry = entry_of("req_slow")
    assert (entry.outcome, entry.chunks) == ("complete", 400)


def test_a_killed_sandbox_leaves_requests_and_no_more_chunks_than_were_received(launch: Any, eventually: Any) -> None:
    running = launch()
    connections = {}
    for number in range(30):
        request_id = f"req_{number}"
        connections[request_id] = start_stream(running.port, request_id, {"chunks": 10_000, "chunk_delay_ms": 2})
    received = {request_id: connection.recv(65536) for request_id, connection in connections.items()}
    eventually(lambda: sum(entry.chunks for entry in read_truth(running.truth).values()) > 100)
    assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    entries = read_truth(running.truth)
    for request_id, connection in connections.items():
        received[request_id] += drain(connection)
        chunks = received[request_id].count(b'"delta":{"content":"w')
        assert entries[request_id].chunks <= chunks
        assert entries[request_id].outcome is None
    assert entries.keys() == connections.keys()


def test_a_restarted_sandbox_goes_on_behind_a_torn_line(launch: Any, tmp_path: Path) -> None:
    path = tmp_path / "truth.jsonl"
    whole = {
        "event": "request",
        "n": 7,
        "request_id": "old",
        "model": "m",
        "stream": False,
        "prompt_tokens": 1,
        "time": 1,
    }
    path.write_bytes(orjson.dumps(whole) + b'\n{"event":"end","n":7,"reque')
    assert read_truth(path)["old"].outcome is None
    running = launch(truth=path)
    start_stream(running.port, "new", {}).close()
    assert wait_for_ends(path, 1)["new"].n == 8
    assert running.stop() == 0


def test_waiting_for_an_end_that_does_not_come_times_out(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(TimeoutError, match="0 of 1"):
        wait_for_ends(tmp_path / "empty", 1, timeout_s=0.05)


@pytest.mark.asyncio
async def test_no_byte_leaves_before_the_request_line_is_durable(tmp_path: Path) -> None:
    allowed, syncing = threading.Event(), threading.Event()

    def sync(_: int) -> None:
        syncing.set()
        assert allowed.wait(5)

    async with Sandbox(Options(port=0, truth=tmp_path / "truth"), sync=sync) as sandbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(stream_request("req_gate", {"chunks": 2}))
        assert await asyncio.to_thread(syncing.wait, 5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.1)
        allowed.set()
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_lines_of_many_requests_share_their_fsyncs(tmp_path: Path) -> None:
    syncs: list[int] = []
    errors: list[OSError] = []
    log = TruthLog(tmp_path / "truth", on_failure=errors.append, sync=syncs.append)
    tickets = [Ticket(log, f"req_{number}") for number in range(500)]
    await asyncio.gather(*(ticket.accept(model="m", stream=True, usage=Usage(1, 1, 0, 0)) for ticket in tickets))
    for ticket in tickets:
        ticket.count(1, carries_usage=False)
        ticket.chunk()
        ticket.end(Outcome.COMPLETE)
    await log.close()
    entries = read_truth(tmp_path / "truth")
    assert [(entry.tokens, entry.outcome) for entry in entries.values()] == [(1, "complete")] * 500
    assert 2 <= len(syncs) <= 4
    assert errors == []


@pytest.mark.asyncio
async def test_a_truth_file_has_one_owner(tmp_path: Path) -> None:
    errors: list[OSError] = []
    log = TruthLog(tmp_path / "truth", on_failure=errors.append)
    with pytest.raises(BlockingIOError):
        TruthLog(tmp_path / "truth", on_failure=errors.append)
    await log.close()


@pytest.mark.asyncio
async def test_a_failing_disk_stops_the_sandbox_unanswered(tmp_path: Path) -> None:
    def sync(_: int) -> None:
        raise OSError(5, os.strerror(5))

    async with Sandbox(Options(port=0, truth=tmp_path / "truth"), sync=sync) as sandbox:
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(stream_request("req_eio", {}))
        await asyncio.wait_for(sandbox.must_stop.wait(), 5)
        assert sandbox.failure is not None
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


def stream_request(request_id: str, script: dict[str, Any], model: str = "sandbox-echo") -> bytes:
    body = orjson.dumps(
        {
            "model": model,
            "stream": True,
            "messages": [{"role": "user", "content": "word"}],
            "sandbox": script,
        }
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nx-request-id: {request_id}\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def start_stream(
    port: int,
    request_id: str,
    script: dict[str, Any],
    *,
    model: str = "sandbox-echo",
    receive_buffer: int = 0,
) -> socket.socket:
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(5)
    connection.connect(("127.0.0.1", port))
    connection.sendall(stream_request(request_id, script, model))
    return connection


def drain(connection: socket.socket) -> bytes:
    """What is still to be read, whatever the end."""
    rest = b""
    with connection:
        try:
            while part := connection.recv(65536):
                rest += part
        except ConnectionResetError:
            pass
    return rest
