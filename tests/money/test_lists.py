"""The lists of this room are true: rules and their tests, crash points and their places, mutants and their texts."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from apps.core.crash_points import EXIT_CODE, POINTS, ArmedPoint
from tests.money.mutants import Mutant
from tests.money.mutating import ALL

ROOT = Path(__file__).resolve().parents[2]
INVARIANTS = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
TESTING = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
RULES = [f"D{number}" for number in range(1, 31)]
ON_BOTH_WAYS_OF_A_STREAM = ["P5", "P6"]
"""A piece goes to the client at once, or by the task of its request: these points stand on both ways."""
ROW = re.compile(r"^\| (D\d+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w./]+\.py)::(\w+)`")


@cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_rule_stands_in_the_table_once_with_tests_that_exist_or_a_reason() -> None:
    proved, _, missing = INVARIANTS.partition("## Not proved yet")
    rows = {name: tests for name, _, tests in ROW.findall(proved)}
    named = [*rows, *(name for name, _, _ in ROW.findall(missing))]
    assert sorted(named) == sorted(RULES)
    for name, tests in rows.items():
        found = TEST.findall(tests)
        assert found, f"{name} names no test"
        assert [f"{path}::{test}" for path, test in found if test not in functions(path)] == []


def test_every_rule_named_in_a_docstring_here_is_one_of_the_table() -> None:
    for path in sorted((ROOT / "tests" / "money").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                named = re.match(r"(D\d+(?:, D\d+)*):", ast.get_docstring(node) or "")
                assert named is None or set(named[1].split(", ")) <= set(RULES)


def test_every_crash_point_is_documented_and_stands_in_the_code_once_on_each_way() -> None:
    assert dict(re.findall(r"^\| (P\d+) \| ([^|]+) \|$", TESTING, re.MULTILINE)) == POINTS
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "apps").rglob("*.py"))
    called = re.findall(r'^\s+crash_point\("(P\d+)"\)$', code, re.MULTILINE)
    assert sorted(called) == sorted([*POINTS, *ON_BOTH_WAYS_OF_A_STREAM])


@pytest.mark.parametrize("setting", ["P99", "P4:0", "P4:x", "p4", ":", "P4:-1"])
def test_a_crash_point_that_is_not_there_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="CRUN_CRASH_POINT"):
        ArmedPoint(setting)


@pytest.mark.parametrize(("setting", "code"), [("", 0), ("P3", EXIT_CODE), ("P4:2", EXIT_CODE), ("P4:3", 0), ("P5", 0)])
def test_the_variable_alone_makes_a_process_die_at_its_point_and_time(setting: str, code: int) -> None:
    program = "from apps.core.crash_points import crash_point\nfor point in ('P4', 'P3', 'P4'): crash_point(point)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "CRUN_CRASH_POINT": setting}, check=False
    )
    assert done.returncode == code


def test_there_are_mutants_enough_of_code_and_of_sql() -> None:
    assert len(ALL) >= 65
    assert len({mutant.name for mutant in ALL}) == len(ALL)
    assert sum(mutant.name.startswith("SQL") for mutant in ALL) >= 4


@pytest.mark.parametrize("mutant", ALL, ids=lambda mutant: mutant.name)
def test_the_text_of_every_mutant_is_there_once_and_so_are_its_tests(mutant: Mutant) -> None:
    assert (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.text) == 1
    assert mutant.replacement != mutant.text
    files = [word for word in mutant.tests.split() if word.startswith("tests/")]
    assert files and all((ROOT / name).is_file() for name in files)
