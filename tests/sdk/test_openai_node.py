"""The official OpenAI SDK for Node against a running installation; what it must do stands in node/checks.mjs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.acceptance.installing import Installation

pytestmark = pytest.mark.installation
NODE = Path(__file__).with_name("node")
FILES = ("package.json", "package-lock.json", ".npmrc", "checks.mjs")
NAMES = re.findall(r'^  async "(.+)"\(\)', (NODE / "checks.mjs").read_text(), re.MULTILINE)
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|ENOTCACHED")
LIMIT_S = 90


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK as the lock file pins it, and the checks."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("needs node and npm, which are not installed here")
    folder = tmp_path_factory.mktemp("node")
    for name in FILES:
        shutil.copy(NODE / name, folder)
    command = [npm, "ci", "--prefer-offline", "--ignore-scripts", "--no-fund", "--no-audit"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0 and NO_REGISTRY.search(done.stderr):
        pytest.skip("npm cannot reach its registry, and the SDK is not in its cache")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def outcomes(sdk: Path, installation: Installation) -> dict[str, str | None]:
    """What each check said: nothing when it passed."""
    environment = {**os.environ, "BASE_URL": installation.api, "API_KEY": installation.api_key}
    command = [shutil.which("node") or "node", "checks.mjs"]
    done = subprocess.run(
        command, cwd=sdk, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [orjson.loads(line) for line in done.stdout.splitlines()]
    return {check["name"]: check["error"] for check in said}


@pytest.mark.parametrize("name", NAMES)
def test_the_node_sdk(outcomes: dict[str, str | None], name: str) -> None:
    assert outcomes[name] is None


def test_every_check_was_run(outcomes: dict[str, str | None]) -> None:
    assert list(outcomes) == NAMES
    assert len(NAMES) == 14
