"""A stop in the middle of a stream, and the next start: nothing cut, nothing left behind, nothing forgotten."""

import asyncio
import os
import socket
from dataclasses import dataclass

import pytest

from apps.core.ids import new_id
from tests.acceptance.asking import Answer, caller
from tests.acceptance.installing import Installation, Start
from tests.acceptance.processes import is_alive, mentioning
from tests.acceptance.records import Record, difference, records_since, settled_records
from tests.acceptance.scale import figure, within
from tests.acceptance.upstream import TruthUpstream

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

READY_WITHIN_S = 15.0
SLOW = {"chunks": 30, "chunk_delay_ms": 100}  # 3 s
PROCESSES = {"crun", "postgres", "valkey", "sandbox", "worker", "beat", "asgi", "asgi-0", "asgi-1"}


@dataclass(frozen=True)
class Restarted:
    """What was seen of a stop in the middle of a stream and of the start after it."""

    stream: Answer
    code: int
    pid_files: set[str]
    left_behind: list[str]
    before: dict[str, Record]
    after: dict[str, Record]
    starts: list[Start]
    answer_with_the_old_key: Answer


async def _stop_in_the_middle(running: Installation) -> tuple[Answer, int]:
    """A stream that is open when the installation is asked to stop, and the exit code."""
    async with caller(running) as asking:
        stream = asyncio.create_task(asking.ask("truth-echo", "a b c", stream=True, sandbox=SLOW))
        await asyncio.sleep(0.5)
        code = await asyncio.to_thread(running.stop)
        return await stream, code


async def _ask(running: Installation) -> Answer:
    async with caller(running) as asking:
        return await asking.ask("truth-echo", "Is it still me?")


def _left_behind(running: Installation, pids: set[int]) -> list[str]:
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
def restarted(installation: Installation, truth: TruthUpstream) -> Restarted:
    """The shared installation, stopped and started again."""
    truth.ended_since(0)
    before = records_since(installation, "")
    names = {path.stem for path in installation.home.run.glob("*.pid")}
    pids = {installation.pid(name) for name in names}
    mark = new_id("req")
    stream, code = asyncio.run(_stop_in_the_middle(installation))
    left = _left_behind(installation, pids)
    installation.start()
    answer = asyncio.run(_ask(installation))
    settled_records(installation, mark, [stream.request_id, answer.request_id])
    after = records_since(installation, "")
    return Restarted(stream, code, names, left, before, after, list(installation.starts), answer)


def test_sigterm_lets_a_running_stream_end(restarted: Restarted) -> None:
    assert restarted.stream.is_whole
    assert restarted.stream.usage["completion_tokens"] == SLOW["chunks"]


def test_a_stop_ends_with_exit_code_0_and_leaves_no_process_no_socket_and_no_port(restarted: Restarted) -> None:
    assert restarted.code == 0
    assert restarted.pid_files == PROCESSES
    assert restarted.left_behind == []


def test_the_stream_that_ended_during_the_stop_has_its_one_true_record(
    restarted: Restarted, truth: TruthUpstream
) -> None:
    told = truth.entries_since(0)[restarted.stream.request_id]
    assert difference(restarted.after[restarted.stream.request_id], told) == {}


def test_the_next_start_finds_every_record_as_it_was(restarted: Restarted) -> None:
    kept = {name: restarted.after[name].row for name in restarted.before}
    assert kept == {name: record.row for name, record in restarted.before.items()}


def test_the_first_start_shows_a_key_and_the_next_keeps_it_to_itself(restarted: Restarted) -> None:
    first, second = restarted.starts[0].output, restarted.starts[-1].output
    assert first.count("(shown once)") == 2
    assert "curl " in first
    assert "ak_" in first
    assert "ak_" not in second
    assert "(shown once)" not in second
    assert restarted.answer_with_the_old_key.is_whole


def test_both_starts_are_ready_in_15_seconds(restarted: Restarted) -> None:
    first_s, second_s = restarted.starts[0].took_s, restarted.starts[-1].took_s
    figure("start", f"first {first_s:.1f} s, second {second_s:.1f} s (load {os.getloadavg()[0]:.1f})")
    assert first_s < within(READY_WITHIN_S)
    assert second_s < within(READY_WITHIN_S)
