"""`crun up` as people use it: a whole installation, visited, wounded, stopped and started again."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from crun.home import BASE_DIR, Home
from crun.supervisor.listening import free_port
from crun.supervisor.pidfiles import PidFiles

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

OURS = ("CRUN_", "DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "PYTEST_", "SANDBOX_")
CHILDREN = {"crun", "asgi", "asgi-0", "asgi-1", "worker", "beat", "sandbox", "postgres", "valkey"}


class Installation:
    """One home, started and stopped as often as a test likes."""

    def __init__(self, home: Home, output: Path) -> None:
        self.home = home
        self.port = free_port(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        env = {**kept, "CRUN_HOME": str(self.home.path), "PORT": str(self.port), "WORKERS": "2"}
        with self._output.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "crun.cli", "up"], cwd=BASE_DIR, env=env, stdout=output, stderr=output
            )

    def start(self, eventually: Callable[..., None]) -> str:
        """Start and return what was printed; fails when it ends instead."""
        self._process = self.command()
        eventually(lambda: "Ctrl-C stops everything" in self._output.read_text() or self._process_ended(), limit_s=90)
        printed = self._output.read_text()
        assert not self._process_ended(), printed
        return printed

    def stop(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(number)
        return process.wait(60)

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def chat(self, api_key: str) -> httpx.Response:
        body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "Hello, CRUN!"}]}
        headers = {"Authorization": f"Bearer {api_key}"}
        return httpx.post(f"{self.url}/api/v1/chat/completions", json=body, headers=headers, timeout=30)


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(prefix="crun-up-") as folder:
        Path(folder).chmod(0o755)  # open to PostgreSQL's user, so that as root no data goes to /var/lib/crun
        made = Installation(Home(Path(folder) / "home"), tmp_path / "printed")
        yield made
        made.stop(signal.SIGTERM)


def test_an_installation_serves_heals_stops_and_remembers(
    installation: Installation, eventually: Callable[..., None]
) -> None:
    pids = PidFiles(installation.home.run)
    printed = installation.start(eventually)
    assert f"{installation.url}/console/" in printed
    assert printed.count("(shown once)") == 2
    api_key = re.search(r"ak_\w+", printed)
    assert api_key is not None
    answer = installation.chat(api_key[0])
    assert answer.status_code == 200, answer.text
    assert "Hello, CRUN!" in answer.json()["choices"][0]["message"]["content"]
    assert set(pids.read()) == CHILDREN

    second = installation.command()
    assert second.wait(30) == 1

    before = pids.read()
    for name in ("asgi-0", "asgi-1"):
        os.kill(before[name], signal.SIGKILL)
    answer = installation.chat(api_key[0])  # it waits in the queue of the socket until a worker is back
    assert answer.status_code == 200, answer.text
    os.kill(before["postgres"], signal.SIGKILL)
    eventually(lambda: pids.read().get("postgres", before["postgres"]) != before["postgres"])
    eventually(lambda: installation.chat(api_key[0]).status_code == 200)  # both workers are new: they ask for the key
    assert set(pids.read()) == CHILDREN

    assert installation.stop(signal.SIGINT) == 0
    assert pids.read() == {}
    printed = installation.start(eventually)
    assert "(shown once)" not in printed
    assert installation.chat(api_key[0]).status_code == 200
    everybody = pids.read().values()
    assert installation.stop(signal.SIGTERM) == 0
    for pid in everybody:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
