"""deploy/Dockerfile: what it copies exists, what it leaves out stays out, and it ends as an ordinary user."""

import json
import re

from tests.deploy.compose import DOCKERFILE, ROOT, own_services, services

TEXT = re.sub(r"\\\n\s*", " ", DOCKERFILE.read_text(encoding="utf-8"))
LINES = [line.strip() for line in TEXT.splitlines() if line.strip() and not line.startswith("#")]
FINAL_STAGE = LINES[max(index for index, line in enumerate(LINES) if line.startswith("FROM")) :]
IGNORED = [
    line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
]


def sources() -> list[str]:
    """What is copied from the repository."""
    copies = [line.split()[1:] for line in LINES if line.startswith("COPY ") and "--from=" not in line]
    return [source for words in copies for source in words[:-1]]


def test_everything_that_is_copied_exists() -> None:
    assert sources()
    for source in sources():
        assert (ROOT / source).exists(), source


def test_everything_that_is_copied_is_let_into_the_build_and_nothing_else() -> None:
    assert IGNORED[0] == "*"
    let_in = {line.removeprefix("!") for line in IGNORED if line.startswith("!")}
    assert let_in == {source.rstrip("/") for source in sources()}


def test_packages_come_from_the_lock_with_hashes_and_need_no_compiler() -> None:
    (install,) = [line for line in LINES if "--requirement" in line]
    assert "--require-hashes" in install
    assert "--only-binary=:all:" in install
    assert "requirements/run.txt" in install


def test_the_last_stage_installs_what_lays_out_pdfs_and_nothing_else() -> None:
    installing = [line for line in FINAL_STAGE if re.search(r"\b(apt-get|pip|gcc|make)\b", line)]
    assert len(installing) == 1
    words = installing[0].split()
    packages = words[words.index("--no-install-recommends") + 1 : words.index("rm") - 1]
    assert packages == ["libpangoft2-1.0-0", "libharfbuzz-subset0", "fonts-liberation"]
    assert installing[0].endswith("rm -rf /var/lib/apt/lists/*")


def test_it_runs_as_an_ordinary_user() -> None:
    users = [line.split()[1] for line in FINAL_STAGE if line.startswith("USER")]
    assert users == ["crun"]
    after = FINAL_STAGE[FINAL_STAGE.index("USER crun") :]
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in after)


def test_its_own_command_and_check_are_those_of_the_gateway() -> None:
    (command,) = [json.loads(line.removeprefix("CMD ")) for line in LINES if line.startswith("CMD ")]
    gateway = services()["gateway"]["command"]
    assert _words(command) <= _words(gateway)
    (check,) = [line for line in LINES if line.startswith("HEALTHCHECK")]
    assert services()["gateway"]["healthcheck"]["test"][-1] in check


def _words(command: list[str]) -> set[str]:
    """Options and values, however they are joined."""
    return {part for word in command for part in word.split("=", 1)}


def test_compose_builds_this_image_from_the_root() -> None:
    for service in own_services().values():
        assert service["build"] == {"context": ".", "dockerfile": "deploy/Dockerfile"}


def test_python_is_one_that_the_project_supports() -> None:
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=python:(\d+\.\d+)-slim", TEXT, re.MULTILINE)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"Programming Language :: Python :: {image}" in project
