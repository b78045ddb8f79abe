"""Stand-in children and a patient way to wait, for the tests of the supervisor."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crun.embedded import binaries, places
from crun.home import Home
from crun.supervisor.program import Program, StopStep


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait until a condition is true; generous, so that a busy machine changes nothing but the time it takes."""

    def wait(condition: Callable[[], object], *, limit_s: float = 20.0) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen within {limit_s:g} s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def child(home: Home) -> Callable[..., Program]:
    """Make a program from a shell script or, by default, one that sleeps for ever."""

    def make(name: str, script: str = "exec sleep 600", *steps: StopStep, **options: object) -> Program:
        if steps:
            options["stop_steps"] = steps
        return Program(name=name, argv=("/bin/sh", "-c", script), log=home.logs / f"{name}.log", **options)  # type: ignore[arg-type]  # any field of Program

    return make


@pytest.fixture
def supervise(home: Home) -> tuple[str, ...]:
    """A command that supervises stand-in children in `home`, to be killed."""
    return (sys.executable, str(Path(__file__).with_name("supervise.py")), str(home.path))


@pytest.fixture
def shared_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for /var/lib/crun that goes away with the test; any user may enter it."""
    folder = Path(tempfile.mkdtemp(prefix="crun-test-", dir="/tmp"))
    folder.chmod(0o755)
    for module in (binaries, places):
        monkeypatch.setattr(module, "SHARED_PLACE", folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def lasting_home(home: Home, shared_place: Path) -> Home:
    """A home whose data is kept between starts, like an installation's, and removed with the test."""
    assert shared_place.is_dir()
    return home
