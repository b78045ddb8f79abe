"""The environment of a test run: a home of its own with real PostgreSQL and Valkey, set before Django.

Loaded as a pytest plugin (`-p tests.environment` in pyproject.toml). With xdist the controller owns the servers."""

import base64
import gc
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from crun.embedded import embedded_servers
from crun.home import Home
from tests.programs import MISSING

OUTSIDE = ("DATABASE_URL", "REDIS_URL", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "CRUN_JOURNAL_DIR", "PORT", "WORKERS")
TESTS = Path(__file__).resolve().parent
WITH_INSTALLATION = ("sdk", "contract", "acceptance")
WITH_STAGE = "money"
LONG = (
    "portal",
    "console",
    "billing",
    "payments",
    WITH_STAGE,
    "browser",
    "deploy",
    "supervisor",
    "database",
    "gateway",
)
"""Folders whose files take long, in the order of their turns. Short files come last, so that no process waits long for
another; and what measures times, with the installation, does not begin beside what asks for all of the machine."""
INSTALLATION = pytest.StashKey[ExitStack]()
"""What ends the running installation."""
IS_XDIST_WORKER = "PYTEST_XDIST_WORKER" in os.environ


def _fixed_key(letter: str) -> str:
    return base64.b64encode(letter.encode() * 32).decode()


if not IS_XDIST_WORKER:
    # Short and open to others: sockets fit into their 107 bytes, and as root PostgreSQL's own user gets in.
    home_path = Path(tempfile.mkdtemp(prefix="crun-tests-"))
    home_path.chmod(0o755)
    os.environ["CRUN_HOME"] = str(home_path / "home")
    os.environ["CRUN_SECRET_KEY"] = "only-for-tests-" + "x" * 50
    os.environ["CRUN_KEY_PEPPERS"] = f"t1:{_fixed_key('p')}"
    os.environ["CRUN_ENCRYPTION_KEYS"] = f"t1:{_fixed_key('e')}"
    os.environ["CRUN_LOG_LEVEL"] = "WARNING"
    for name in OUTSIDE:
        os.environ.pop(name, None)

else:
    # Workers have databases of their own; Valkey's are numbered.
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) + 1
    os.environ["REDIS_URL"] = Home(Path(os.environ["CRUN_HOME"])).redis_url().replace("db=0", f"db={number}")

_servers = ExitStack()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before the first test needs them."""
    if not IS_XDIST_WORKER and not config.option.collectonly:
        _servers.enter_context(embedded_servers(Home(Path(os.environ["CRUN_HOME"])), durable=False))


def pytest_unconfigure() -> None:
    """Nothing stays behind: no process, no folder."""
    _servers.close()
    if not IS_XDIST_WORKER:
        shutil.rmtree(Path(os.environ["CRUN_HOME"]).parent, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What could not be tried on this machine is said last: a green run without it is not a whole one."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", ())]
    absent = Counter(reason.partition(MISSING)[2] for reason in reasons if MISSING in reason)
    if absent:
        terminalreporter.section("NOT TRIED", red=True)
    for name, tests in sorted(absent.items()):
        terminalreporter.line(f"{tests} tests were left out. They need what is {MISSING}{name}.", red=True)
    if absent:
        terminalreporter.line("`deploy/install-test-packages` installs what the system's packages have.")


class WholeFiles(LoadScopeScheduling):
    """For several processes: files stay whole, and what shares a running installation or stage stays together."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = Path(path).parts[1]
        return "installation" if folder in WITH_INSTALLATION else folder if folder == WITH_STAGE else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WholeFiles:
    """Which process gets which test, in the order below; by itself it would begin with files of many short tests."""
    config.option.loadscopereorder = False
    return WholeFiles(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Modules and tests live to the end: looking for garbage among them took a fifth of the time of collecting, and
    much of every look later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of the running installation come first: they take longest and cannot be divided. Of those the last are
    the ones that kill its servers: after that it believes no idempotency key for a while."""
    items.sort(key=lambda item: _turn(item.path.relative_to(TESTS).parts[0]))


def _turn(folder: str) -> int:
    turns = WITH_INSTALLATION + LONG
    return turns.index(folder) if folder in turns else len(turns)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After the last of its tests the installation stops: its dozen processes would be in the way of all others."""
    is_used = nextitem is not None and nextitem.path.relative_to(TESTS).parts[0] in WITH_INSTALLATION
    if not is_used and (running := item.config.stash.get(INSTALLATION, None)):
        running.close()
