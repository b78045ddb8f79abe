"""Children are kept running: noticed when they die, started again, named in pid files."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from crun.home import Home
from crun.supervisor import crew as crew_module
from crun.supervisor.crew import Crew, StartFailed, StopRequested
from crun.supervisor.pidfiles import PidFiles
from crun.supervisor.program import Program, StartBlocked

Scene = Callable[[Crew], Coroutine[Any, Any, None]]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def play(home: Home, said: list[str]) -> Callable[[Scene], None]:
    """Run a scene with a crew whose children are stopped at its end."""

    def run(scene: Scene) -> None:
        async def act() -> None:
            crew = Crew(home, say=said.append)
            with crew.signals():
                try:
                    async with asyncio.timeout(30):
                        await scene(crew)
                finally:
                    await crew.stop()

        asyncio.run(act())

    return run


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 -- a change in the process table raises no event
        await asyncio.sleep(0.01)


def test_a_killed_child_is_back_under_its_names(
    play: Callable[[Scene], None], child: Callable[..., Program], home: Home, said: list[str]
) -> None:
    pids = PidFiles(home.run)

    async def scene(crew: Crew) -> None:
        crew.keep(child("asgi-0", aliases=("asgi",)))
        await until(lambda: "asgi" in pids.read())
        first = pids.read()
        assert first["asgi"] == first["asgi-0"]
        assert first["crun"] == os.getpid()
        os.kill(first["asgi"], signal.SIGKILL)
        await until(lambda: pids.read().get("asgi", first["asgi"]) != first["asgi"])
        os.kill(pids.read()["asgi"], 0)

    play(scene)
    assert len(said) == 1
    assert said[0].startswith("asgi-0 was killed by SIGKILL: starting it again")
    assert pids.read() == {}


def test_what_a_dead_child_leaves_in_its_group_is_swept(
    play: Callable[[Scene], None], child: Callable[..., Program], tmp_path: Path
) -> None:
    pool = tmp_path / "pool.pid"

    async def scene(crew: Crew) -> None:
        keeper = crew.keep(child("worker", f"sleep 600 & echo $! > {pool}.new; mv {pool}.new {pool}; wait"))
        await until(pool.exists)
        member, leader = int(pool.read_text()), keeper.pid
        assert leader is not None
        os.kill(leader, signal.SIGKILL)
        await until(lambda: keeper.pid not in (None, leader))
        await until(lambda: not _is_alive(member))

    play(scene)


def test_a_child_that_keeps_dying_fails_the_start_with_the_end_of_its_log(
    play: Callable[[Scene], None], child: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "MAX_EARLY_DEATHS", 2)

    async def scene(crew: Crew) -> None:
        keeper = crew.keep(child("beat", "echo no clock here; exit 3"))
        await crew.until_ready(_never, keeper, limit_s=30)

    with pytest.raises(StartFailed, match=r"(?s)beat keeps dying.*beat\.log:\nno clock here"):
        play(scene)


def test_a_child_that_is_never_ready_fails_the_start_and_says_why(
    play: Callable[[Scene], None], child: Callable[..., Program]
) -> None:
    async def scene(crew: Crew) -> None:
        keeper = crew.keep(child("asgi-0", "echo thinking; exec sleep 600"))
        await crew.until_ready(_never, keeper, limit_s=0.3)

    with pytest.raises(StartFailed, match=r"(?s)asgi-0 is not ready after 0.3 s: not yet.*thinking"):
        play(scene)


def test_a_child_that_cannot_be_started_now_is_tried_again(
    play: Callable[[Scene], None], child: Callable[..., Program], said: list[str]
) -> None:
    refusals = iter([True])

    def refuse_once() -> None:
        if next(refusals, False):
            raise StartBlocked("the old one is still here")

    async def scene(crew: Crew) -> None:
        keeper = crew.keep(child("postgres", before_start=refuse_once))
        await until(lambda: keeper.pid is not None)

    play(scene)
    assert "cannot be started (the old one is still here)" in said[0]


def test_a_signal_during_the_start_ends_it(play: Callable[[Scene], None], child: Callable[..., Program]) -> None:
    async def scene(crew: Crew) -> None:
        keeper = crew.keep(child("sandbox"))
        await until(lambda: keeper.pid is not None)
        os.kill(os.getpid(), signal.SIGTERM)
        await crew.until_ready(_never, keeper, limit_s=30)

    with pytest.raises(StopRequested):
        play(scene)


def test_a_program_run_once_gives_its_output(play: Callable[[Scene], None], child: Callable[..., Program]) -> None:
    async def scene(crew: Crew) -> None:
        assert await crew.run_once(child("prepare", "echo aside >&2; echo report")) == "report\n"
        with pytest.raises(StartFailed, match=r"(?s)prepare ended with status 4.*\nbroken"):
            await crew.run_once(child("prepare", "echo broken >&2; exit 4"))

    play(scene)


def test_a_signal_interrupts_a_program_run_once(
    play: Callable[[Scene], None], child: Callable[..., Program], tmp_path: Path
) -> None:
    started = tmp_path / "started"

    async def scene(crew: Crew) -> None:
        run = asyncio.create_task(crew.run_once(child("prepare", f"touch {started}; exec sleep 600")))
        await until(started.exists)
        crew.request_stop()
        await run

    with pytest.raises(StopRequested):
        play(scene)


async def _never() -> str:
    return "not yet"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
