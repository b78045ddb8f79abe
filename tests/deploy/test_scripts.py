"""The two scripts of deploy/: they never ask, never spoil what is there, and say what is missing."""

import os
import stat
import subprocess
from pathlib import Path

import environ
import pytest

from apps.core.crypto import parse_key_ring
from tests.deploy.compose import ROOT, variables

INSTALLER = ROOT / "deploy" / "install-test-packages"
MAKE_ENV = ROOT / "deploy" / "make-env"
BASICS = ("sh", "env", "mktemp", "tail", "rm", "true")


def run(*argv: str | Path, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": path or os.environ["PATH"], "SBIN": ""}
    return subprocess.run(
        [*map(str, argv)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder for PATH with the basics only; `stub` adds to it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in BASICS:
        (real,) = [path for path in (Path("/bin") / name, Path("/usr/bin") / name) if path.exists()][:1]
        (folder / name).symlink_to(real.resolve())
    stub(folder, "id", "echo 1000")
    stub(folder, "ldconfig", "exit 0")  # what the machine has is not what these tests are about
    return folder


def stub(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_it_is_silent_when_everything_is_there(bare: Path) -> None:
    for name in ("chromium", "node", "npm", "nginx"):
        stub(bare, name, "exit 0")
    stub(bare, "ldconfig", "echo libpangoft2-1.0.so.0; echo libharfbuzz-subset.so.0")
    done = run(INSTALLER, path=str(bare))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_rights_it_says_what_will_not_be_run_and_succeeds(bare: Path) -> None:
    done = run(INSTALLER, path=str(bare))
    assert done.returncode == 0, done.stderr
    for word in ("Chromium is missing", "Node.js", "nginx is missing", "Pango library is missing"):
        assert word in done.stdout


def test_with_sudo_it_updates_first_and_never_asks(bare: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    stub(bare, "sudo", 'shift; case $1 in sh|rm) exit 0 ;; esac; exec "$@"')  # nothing is written outside
    stub(bare, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {calls}')
    done = run(INSTALLER, path=str(bare))
    assert done.returncode == 0, done.stderr
    lines = calls.read_text().splitlines()
    assert lines[0].endswith("update")
    programs, for_pdfs = ["chromium", "nodejs", "npm", "nginx-light"], ["libpangoft2-1.0-0", "libharfbuzz-subset0"]
    assert [line.split()[-1] for line in lines[1:]] == [*programs, *for_pdfs, "fonts-liberation"]
    assert all(line.startswith("noninteractive ") for line in lines)
    assert all("--yes" in line for line in lines[1:])


def test_make_env_gives_everything_that_compose_requires(tmp_path: Path) -> None:
    target = tmp_path / "env"
    assert run(MAKE_ENV, target).returncode == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    given = _read(target)
    required = variables((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert {name for name, how in required.items() if how == ":?"} <= given.keys()
    for name in ("CRUN_KEY_PEPPERS", "CRUN_ENCRYPTION_KEYS"):
        assert len(parse_key_ring(given[name], variable=name)) == 1
    assert len(given["CRUN_SECRET_KEY"]) > 50
    assert given["POSTGRES_PASSWORD"].isalnum(), "it stands in a URL"
    assert len(set(given.values())) == len(given)


def test_make_env_keeps_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "env"
    target.write_text("POSTGRES_PASSWORD=mine\nPORT=80")
    run(MAKE_ENV, target)
    once = target.read_text()
    assert run(MAKE_ENV, target).returncode == 0
    assert target.read_text() == once
    given = _read(target)
    assert (given["POSTGRES_PASSWORD"], given["PORT"]) == ("mine", "80")


def test_the_example_leaves_no_variable_set() -> None:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("#")] == []


def _read(target: Path) -> dict[str, str]:
    """The file as Django's settings read it."""
    found: dict[str, str] = {}
    reader = environ.Env
    before, reader.ENVIRON = reader.ENVIRON, found
    try:
        reader.read_env(target)
    finally:
        reader.ENVIRON = before
    return found
