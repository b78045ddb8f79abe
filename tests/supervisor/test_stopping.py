"""Children are stopped in order, drained, and killed when they do not obey."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crun.home import Home
from crun.supervisor import keeper
from crun.supervisor.crew import Crew
from crun.supervisor.pidfiles import PidFiles
from crun.supervisor.program import Program, StopStep

# It waits in the shell itself: while dash starts a command, its vfork can lose a signal.
LIVE = "sleep 600 & : > $MARKS/$NAME; while :; do wait; done"
DEAF = f"trap '' TERM; {LIVE}"
DRAINS = f"trap 'sleep 0.3; echo $NAME >> $MARKS/ended; exit 0' TERM; {LIVE}"
WAITS_FOR_THE_OTHER = (
    "trap 'touch $MARKS/asked-$NAME; while [ $(ls $MARKS | grep -c asked-) -lt 2 ]; do sleep 0.02; done; exit' TERM;"
    f"{LIVE}"
)
TAKES_TWO = f"trap '' INT; trap 'echo asked twice > $MARKS/ended; exit 0' QUIT; {LIVE}"


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture
def stop_after_start(home: Home, marks: Path) -> Callable[..., float]:
    """Start programs, wait for their marks, ask to stop (several times); returns how long the stop took."""

    async def act(programs: tuple[Program, ...], *, signals: int) -> float:
        crew = Crew(home, say=print)
        with crew.signals():
            for program in programs:
                crew.keep(program)
            async with asyncio.timeout(20):
                while not all((marks / one.name).exists() for one in programs):  # noqa: ASYNC110 -- files raise no event
                    await asyncio.sleep(0.01)
            for _ in range(signals):
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.sleep(0.05)
            assert crew.stop_requested.is_set()
            began = time.monotonic()
            await crew.stop()
            return time.monotonic() - began

    def run(*programs: Program, signals: int = 1) -> float:
        return asyncio.run(act(programs, signals=signals))

    return run


@pytest.fixture
def marked(child: Callable[..., Program], marks: Path) -> Callable[..., Program]:
    def make(name: str, script: str = DRAINS, *steps: StopStep, **options: object) -> Program:
        return child(name, script, *steps, env={"NAME": name, "MARKS": str(marks)}, **options)

    return make


def test_children_drain_one_by_one_in_reverse_order_of_their_start(
    stop_after_start: Callable[..., float], marked: Callable[..., Program], marks: Path, home: Home
) -> None:
    stop_after_start(*(marked(name) for name in ("postgres", "sandbox", "worker", "asgi-0")))
    assert (marks / "ended").read_text().split() == ["asgi-0", "worker", "sandbox", "postgres"]
    assert PidFiles(home.run).read() == {}


def test_workers_of_one_kind_drain_together(
    stop_after_start: Callable[..., float], marked: Callable[..., Program], marks: Path
) -> None:
    workers = [marked(f"asgi-{number}", stop_together="asgi") for number in range(4)]
    pair = [marked(f"pair-{number}", WAITS_FOR_THE_OTHER, stop_together="pair") for number in range(2)]
    took_s = stop_after_start(marked("postgres"), *pair, *workers)
    ended = (marks / "ended").read_text().split()
    assert sorted(ended[:4]) == ["asgi-0", "asgi-1", "asgi-2", "asgi-3"]
    assert ended[4:] == ["postgres"]
    assert took_s < 10  # each of the pair ends when both are asked; asked in turn, the first would sit out its limit


def test_a_deaf_child_is_killed_after_its_limit(
    stop_after_start: Callable[..., float], marked: Callable[..., Program]
) -> None:
    took_s = stop_after_start(marked("worker", DEAF, StopStep(signal.SIGTERM, 0.3)))
    assert 0.3 <= took_s < 10


def test_the_steps_of_a_stop_are_taken_in_turn(
    stop_after_start: Callable[..., float], marked: Callable[..., Program], marks: Path
) -> None:
    steps = StopStep(signal.SIGINT, 0.2), StopStep(signal.SIGQUIT, 20.0)
    stop_after_start(marked("postgres", TAKES_TWO, *steps))
    assert (marks / "ended").read_text() == "asked twice\n"


def test_a_second_signal_hastens(
    stop_after_start: Callable[..., float], marked: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "HASTENED_LIMIT_S", 0.3)
    took_s = stop_after_start(marked("asgi-0", DEAF, StopStep(signal.SIGTERM, 300.0)), signals=2)
    assert took_s < 30


def test_a_child_in_its_pause_is_not_started_again(
    stop_after_start: Callable[..., float], marked: Callable[..., Program], marks: Path
) -> None:
    stop_after_start(marked("beat", "touch $MARKS/$NAME; echo life >> $MARKS/lives; exit 1"))
    lives = (marks / "lives").read_text()
    time.sleep(0.7)
    assert (marks / "lives").read_text() == lives
