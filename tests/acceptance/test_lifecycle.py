"""First start, a stop in the middle of a stream, second start: nothing cut, nothing left behind, nothing forgotten."""

import asyncio
import csv
import io
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.acceptance.asking import Answer, caller
from tests.acceptance.installing import Installation, new_home
from tests.acceptance.processes import is_alive, mentioning
from tests.acceptance.scale import figure, within

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

READY_WITHIN_S = 15.0
SLOW = {"chunks": 30, "chunk_delay_ms": 100}  # 3 s


@dataclass
class Life:
    """What happened to one installation between its first start and its second stop."""

    stream: Answer = field(default_factory=Answer)
    first: dict[str, object] = field(default_factory=dict)
    second: dict[str, object] = field(default_factory=dict)
    left_behind: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    answer_with_the_old_key: Answer = field(default_factory=Answer)


async def _stop_in_the_middle(running: Installation) -> tuple[Answer, int]:
    """A stream that is open when the installation is asked to stop, and the exit code."""
    async with caller(running) as asking:
        stream = asyncio.create_task(asking.ask("sandbox-echo", "a b c", stream=True, sandbox=SLOW))
        await asyncio.sleep(0.5)
        code = await asyncio.to_thread(running.stop)
        return await stream, code


async def _ask(running: Installation) -> Answer:
    async with caller(running) as asking:
        return await asking.ask("sandbox-echo", "Is it still me?")


def _left_behind(running: Installation, pids: list[int]) -> list[str]:
    """Everything that should have gone with the installation."""
    home = running.home
    left = [f"process {pid}" for pid in pids if is_alive(pid)] + mentioning(home.path)
    left += [f"socket {home.sockets}"] if home.sockets.exists() else []
    left += [f"pid file {path.name}" for path in home.run.glob("*.pid")]
    with socket.socket() as knocking:
        if knocking.connect_ex(("127.0.0.1", int(running.url.rpartition(":")[2]))) == 0:
            left.append("an open port")
    return left


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    lived = Life()
    with new_home() as home:
        running = Installation(home)
        try:
            for facts in (lived.first, lived.second):
                running.start()
                pids = [int(path.read_text()) for path in running.home.run.glob("*.pid")]
                facts.update(took_s=running.took_s, output=running.output, pids=len(pids))
                if facts is lived.first:
                    lived.stream, facts["code"] = asyncio.run(_stop_in_the_middle(running))
                else:
                    lived.answer_with_the_old_key = asyncio.run(_ask(running))
                    lived.rows = _exported(running, lived.stream)
                    facts["code"] = running.stop()
                lived.left_behind += _left_behind(running, pids)
        finally:
            if running.process is not None and running.process.poll() is None:
                running.stop()
        yield lived


def _exported(running: Installation, stream: Answer) -> list[dict[str, str]]:
    """Rows of the export once the stream's is among them, at the latest after 20 s."""
    deadline = time.monotonic() + 20
    while True:
        done = running.crun("usage", "export", "--organization", "demo")
        rows = list(csv.DictReader(io.StringIO(done.stdout)))
        if any(row["request_id"] == stream.request_id for row in rows) or time.monotonic() > deadline:
            return rows


def test_sigterm_lets_a_running_stream_end(life: Life) -> None:
    assert life.stream.is_whole
    assert life.stream.usage["completion_tokens"] == SLOW["chunks"]


def test_a_stop_ends_with_exit_code_0_and_leaves_no_process_no_socket_and_no_port(life: Life) -> None:
    assert life.first["code"] == 0
    assert life.second["code"] == 0
    assert life.first["pids"] == life.second["pids"] == 8  # crun, postgres, valkey, sandbox, worker, beat, asgi(-0)
    assert life.left_behind == []


def test_the_stream_that_ended_during_the_stop_has_its_one_record(life: Life) -> None:
    ours = [row for row in life.rows if row["request_id"] == life.stream.request_id]
    assert [(row["status"], row["output_tokens"], row["estimated"]) for row in ours] == [("completed", "30", "false")]


def test_the_first_start_shows_a_key_and_the_second_keeps_it_to_itself(life: Life) -> None:
    first, second = str(life.first["output"]), str(life.second["output"])
    assert first.count("(shown once)") == 2
    assert "curl " in first
    assert "ak_" in first
    assert "ak_" not in second
    assert "(shown once)" not in second
    assert life.answer_with_the_old_key.is_whole


def test_both_starts_are_ready_in_15_seconds(life: Life) -> None:
    first_s, second_s = float(str(life.first["took_s"])), float(str(life.second["took_s"]))
    figure("start", f"first {first_s:.1f} s, second {second_s:.1f} s (load {os.getloadavg()[0]:.1f})")
    assert second_s < within(READY_WITHIN_S)
    assert first_s < within(READY_WITHIN_S)
