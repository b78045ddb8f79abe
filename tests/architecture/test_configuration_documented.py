"""docs/configuration.md and the code name the same environment variables, with the same defaults."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from crun.home import SECRET_NAMES
from crun.seeding import VENDOR_KEYS
from crun.supervisor.pidfiles import MARK
from tests.deploy.compose import own_services, read_compose, variables

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
CODE = sorted(path for top in ("apps", "crun") for path in (ROOT / top).rglob("*.py") if "migrations" not in path.parts)

VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
MAPPINGS = {"environ", "environment"}
"""Names under which the code holds an environment."""
MENTION = re.compile(r"env|_number")
"""Without one of these in its text no file reads a variable: all that `_variables` looks for has one in its name."""
INTERNAL = {
    MARK: "set by the supervisor in its children, to know them again",
    "DJANGO_SETTINGS_MODULE": "Django's own; every entry point sets it",
    "HOME": "none of ours",
}
ROWS = {
    match["name"]: match["default"].strip()
    for match in re.finditer(r"^\| `(?P<name>[A-Z0-9_]+)` \|(?P<default>[^|]*)\|[^|]+\|$", PAGE, re.MULTILINE)
}


def read_by_code() -> dict[str, object]:
    """Variable -> its default where that is a plain value, else None."""
    found: dict[str, object] = dict.fromkeys([*SECRET_NAMES, *VENDOR_KEYS.values()])
    texts = [path.read_text(encoding="utf-8") for path in CODE]
    for text in texts:
        if not MENTION.search(text):
            continue  # most of the code; parsing it takes seconds
        for name, default in _variables(ast.parse(text)):
            if found.get(name) is None:
                found[name] = default
    return {name: default for name, default in found.items() if name not in INTERNAL}


def _variables(tree: ast.Module) -> Iterator[tuple[str, object]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and _last_name(node.value) in MAPPINGS:
            yield from _named(node.slice, None)
        elif isinstance(node, ast.Call) and node.args and _reads_a_variable(node.func):
            defaults = [keyword.value for keyword in node.keywords if keyword.arg == "default"]
            yield from _named(node.args[0], _value(defaults[0]) if defaults else None)


def _reads_a_variable(function: ast.expr) -> bool:
    """`env.int(...)`, `os.environ.get(...)`, `environment.get(...)`, `os.getenv(...)`, `_number(...)`."""
    if isinstance(function, ast.Name):
        return function.id in ("_number", "getenv")
    if not isinstance(function, ast.Attribute):
        return False
    owner = _last_name(function.value)
    return (
        owner == "env"
        or (owner in MAPPINGS and function.attr in ("get", "setdefault", "pop"))
        or function.attr == "getenv"
    )


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _named(node: ast.expr, default: object) -> Iterator[tuple[str, object]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
        yield node.value, default


def _value(node: ast.expr) -> object:
    """A literal or a shift of literals; None for what is only known at run time."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift):
        left, right = _value(node.left), _value(node.right)
        return left << right if isinstance(left, int) and isinstance(right, int) else None
    return node.value if isinstance(node, ast.Constant) else None


READ = read_by_code()


def test_the_code_was_understood() -> None:
    assert {"PORT", "CRUN_HOME", "DATABASE_URL", "CRUN_PG_USER", "CRUN_OPERATOR_EMAIL", "SANDBOX_PORT"} <= READ.keys()
    assert READ["CRUN_JOURNAL_MAX_BYTES"] == 1 << 30
    assert len(READ) > 30


def test_every_variable_of_the_code_is_documented() -> None:
    assert sorted(READ.keys() - ROWS.keys()) == []


def test_every_documented_variable_is_read() -> None:
    compose = variables((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    set_there = {name for service in own_services().values() for name in service["environment"]}
    assert read_compose()["services"]
    assert sorted(ROWS.keys() - READ.keys() - compose.keys() - set_there) == []


@pytest.mark.parametrize("name", sorted(name for name, default in READ.items() if default not in (None, "")))
def test_the_documented_default_is_that_of_the_code(name: str) -> None:
    assert ROWS[name] == f"`{_as_written(READ[name])}`"


def _as_written(default: object) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_no_variable_is_documented_twice() -> None:
    assert len(re.findall(r"^\| `[A-Z0-9_]+` \|", PAGE, re.MULTILINE)) == len(ROWS)
