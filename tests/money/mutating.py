"""Trying the mutants, each in a copy of the tree, never in the tree itself: `python -m tests.money.mutating`."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from crun.home import BASE_DIR
from tests.money.mutants import MUTANTS, Mutant
from tests.money.mutants_of_answers import MUTANTS_OF_ANSWERS
from tests.money.soaking import figure

ALL = [*MUTANTS, *MUTANTS_OF_ANSWERS]
AT_ONCE = 2
LIMIT_S = 600
TESTS_FAILED = 1
"""pytest's exit code when it ran and something failed: anything else proves nothing."""
TOOK_TOO_LONG = 124


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of all files that belong to the repository, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - whichever git there is
        cwd=BASE_DIR, capture_output=True, check=True,
    )  # fmt: skip
    copy = Path(tempfile.mkdtemp(prefix="crun-mutant-"))
    try:
        for name in listed.stdout.decode().split("\0"):
            if name and (source := BASE_DIR / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy / name)
        yield copy
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def run_tests(tree: Path, tests: str) -> int:
    """pytest's exit code for these tests of that tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CRUN_SOAK")}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *shlex.split(tests)]
    try:
        done = subprocess.run(
            command, cwd=tree, env={**environment, "PYTHONPATH": str(tree)}, capture_output=True, timeout=LIMIT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return TOOK_TOO_LONG
    return done.returncode


def is_caught(mutant: Mutant) -> bool:
    """Whether its tests fail with the mutant, in a copy."""
    with copied_tree() as tree:
        path = tree / mutant.path
        source = path.read_text(encoding="utf-8")
        assert source.count(mutant.text) == 1, f"{mutant.name}: its text is not there exactly once"
        path.write_text(source.replace(mutant.text, mutant.replacement), encoding="utf-8")
        caught = run_tests(tree, mutant.tests) == TESTS_FAILED
    print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.name}", flush=True)
    return caught


def unbroken() -> list[str]:
    """The tests of the list that fail without any mutant: they prove nothing."""
    with copied_tree() as tree:
        return [tests for tests in sorted({mutant.tests for mutant in ALL}) if run_tests(tree, tests) != 0]


def main() -> None:
    """Try all mutants, or those whose name contains one of the arguments. Exit code 1: one survived."""
    wanted = [m for m in ALL if not sys.argv[1:] or any(word in m.name for word in sys.argv[1:])]
    began = time.monotonic()
    if not sys.argv[1:] and (broken := unbroken()):
        sys.exit(f"these tests fail without a mutant: {broken}")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        caught = list(pool.map(is_caught, wanted))
    figure("mutants", tried=len(wanted), caught=sum(caught), took_s=round(time.monotonic() - began))
    sys.exit(not all(caught))


if __name__ == "__main__":
    main()
