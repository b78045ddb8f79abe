"""The official SDKs for Node against a running installation; what they must do stands in node/*.mjs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import orjson
import pytest

from tests.acceptance.installing import Installation
from tests.programs import NODE, NPM, missing

pytestmark = pytest.mark.installation
FOLDER = Path(__file__).with_name("node")
SCRIPTS = {"chat.mjs": 24, "responses.mjs": 9, "anthropic.mjs": 11}
"""File -> how many checks it has."""
FILES = ("package.json", "package-lock.json", ".npmrc", "run.mjs", "schema.mjs", *SCRIPTS)
NAMES = [
    (script, name)
    for script in SCRIPTS
    for name in re.findall(r'^  async "(.+)"\(\)', (FOLDER / script).read_text(), re.MULTILINE)
]
Outcomes = dict[tuple[str, str], str | None]
NO_REGISTRY = re.compile(r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|ENOTCACHED")
LIMIT_S = 90


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SDK as the lock file pins it, and the checks."""
    if not NODE or not NPM:
        pytest.skip(missing("Node.js with npm"))
    folder = tmp_path_factory.mktemp("node")
    for name in FILES:
        shutil.copy(FOLDER / name, folder)
    command = [NPM, "ci", "--prefer-offline", "--ignore-scripts", "--no-fund", "--no-audit"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0 and NO_REGISTRY.search(done.stderr):
        pytest.skip(missing("a registry of npm within reach, and the SDK in its cache"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def outcomes(sdk: Path, installation: Installation) -> Outcomes:
    """What each check said: nothing when it passed."""
    environment = {**os.environ, "BASE_URL": installation.api, "API_KEY": installation.api_key}
    command = [NODE, "run.mjs", *SCRIPTS]
    done = subprocess.run(
        command, cwd=sdk, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    checks = [orjson.loads(line) for line in done.stdout.splitlines()]
    return {(check["script"], check["name"]): check["error"] for check in checks}


@pytest.mark.parametrize("check", NAMES, ids=lambda check: check[1])
def test_a_node_sdk(outcomes: Outcomes, check: tuple[str, str]) -> None:
    assert outcomes[check] is None


def test_every_check_was_run(outcomes: Outcomes) -> None:
    assert list(outcomes) == NAMES
    assert [sum(script == each for script, _ in NAMES) for each in SCRIPTS] == list(SCRIPTS.values())
