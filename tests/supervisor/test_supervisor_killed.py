"""After `kill -9` of the supervisor nothing goes on, and the next start finds a clean place."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from crun.home import BASE_DIR, Home
from crun.supervisor import pidfiles
from crun.supervisor.lock import AlreadyRunning, hold_lock
from crun.supervisor.pidfiles import MARK, PidFiles, end_leftovers

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal and /proc exist on Linux only")
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def start(supervise: tuple[str, ...], home: Home) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []

    def run(**scripts: str) -> subprocess.Popen[bytes]:
        arguments = [f"{name}={script}" for name, script in scripts.items()]
        running.append(subprocess.Popen([*supervise, *arguments], env={**os.environ, "PYTHONPATH": str(BASE_DIR)}))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()
    end_leftovers(home)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@linux_only
def test_children_end_with_their_supervisor(
    start: Callable[..., subprocess.Popen[bytes]], home: Home, eventually: Callable[..., None]
) -> None:
    pids = PidFiles(home.run)
    supervisor = start(asgi="exec sleep 600", worker="exec sleep 600", postgres="exec sleep 600")
    eventually(lambda: len(pids.read()) == 4)
    children = [pid for name, pid in pids.read().items() if name != "crun"]
    supervisor.kill()
    supervisor.wait()
    eventually(lambda: all(_is_gone(pid) for pid in children))


@linux_only
def test_the_next_start_ends_a_child_that_does_not_obey(
    start: Callable[..., subprocess.Popen[bytes]],
    home: Home,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pidfiles, "LEFTOVER_LIMIT_S", 0.3)
    pids, log = PidFiles(home.run), home.logs / "worker.log"
    first = start(worker=DEAF)
    eventually(lambda: log.exists() and "ready" in log.read_text())
    deaf = pids.read()["worker"]
    first.kill()
    first.wait()
    assert not _is_gone(deaf)
    end_leftovers(home)
    eventually(lambda: _is_gone(deaf))
    second = start(worker="exec sleep 600")
    eventually(lambda: pids.read().get("worker", deaf) != deaf)
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    assert pids.read() == {}


@linux_only
def test_a_stranger_with_the_number_of_a_dead_child_is_left_alone(home: Home) -> None:
    pids = PidFiles(home.run)
    environment = {**os.environ, MARK: f"{home.path}-of-somebody-else"}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment) as stranger:
        pids.write(["worker"], stranger.pid)
        end_leftovers(home)
        assert stranger.poll() is None
        stranger.kill()
    assert pids.read() == {}


def test_two_supervisors_of_one_home_are_refused(
    start: Callable[..., subprocess.Popen[bytes]], home: Home, eventually: Callable[..., None]
) -> None:
    first = start(worker="exec sleep 600")
    eventually(lambda: "worker" in PidFiles(home.run).read())
    with pytest.raises(AlreadyRunning, match=f"process {first.pid}"), hold_lock(home):
        pytest.fail("the lock was given twice")
    first.kill()
    first.wait()
    with hold_lock(home):
        assert (home.run / "crun.lock").read_text() == f"{os.getpid()}\n"
