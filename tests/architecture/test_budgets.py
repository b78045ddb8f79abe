"""How long files and functions may be, and what no file may contain. Raising a budget takes a decision record."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    path for top in ("apps", "crun", "bench") for path in (ROOT / top).rglob("*.py") if "migrations" not in path.parts
)

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
MAX_PARAMETERS = 6
FORBIDDEN_NAMES = {"utils.py", "helpers.py", "common.py"}

BROAD_HANDLERS = {
    "apps/gateway/answers/relay.py": "process edge: after the first byte every failure is an event of the stream",
    "apps/gateway/providers/connection.py": "edge of the event loop: who reads an answer is told what broke as it came",
    "apps/gateway/server/http.py": "process edge: a bug becomes a 500 that tells nothing but its request id",
    "apps/billing/alerts/apart.py": "process edge: what one customer's rows bring about must not stop the others",
    "apps/gateway/stored/room.py": "process edge: an answer that is paid for is given, whether or not it can be stored",
    "apps/billing/rebuilding.py": "process edge: one organization that cannot be rebuilt must not stop the others",
    "apps/gateway/admission/reservations.py": "process edge: who waits for a rebuild gets an answer, whatever breaks",
    "apps/billing/one_by_one.py": "process edge: one odd row of periodic work must not stop the work on the others",
    "apps/billing/payments/inbox.py": "process edge: one odd event must not stop the others; it is noted and given up",
    "apps/billing/payments/tasks.py": "process edge: one step of the work on payments must not stop the next",
}
"""Files that may catch Exception or everything, each with its reason."""
RELEASING_HANDLERS = {
    "apps/core/redis_link.py": "drops the connection that was just being made, and raises again",
    "apps/gateway/providers/connection.py": "closes the connection of a request that was given up, and raises again",
    "apps/gateway/dispatch.py": "closes the record whatever ended the attempt, and raises again",
    "apps/gateway/response_cache/replaying.py": "gives a hold back when no kept answer is given, and raises again",
    "crun/embedded/postgres.py": "ends the initdb that it started, and raises again",
    "crun/sandbox/server.py": "closes the truth log of a server that could not start, and raises again",
}
"""Files that may catch BaseException: they give something back and raise again."""
BRIDGES = {"apps/portal/streaming.py": "long downloads are read row by row in a thread"}
"""Files that may hop between threads and the event loop. None is on the data path."""


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    """Half a million nodes are in everybody's way."""
    yield
    for cached in (trees, nodes):
        cached.cache_clear()


@cache
def trees() -> dict[str, ast.Module]:
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


@cache
def nodes() -> dict[str, list[ast.AST]]:
    """Everything that stands in each file."""
    return {name: list(ast.walk(tree)) for name, tree in trees().items()}


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for name, every in nodes().items():
        for node in every:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [argument for argument in every if argument.arg not in ("self", "cls")]


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 70


def test_no_file_is_longer_than_its_budget() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    long = [
        f"{name}:{node.lineno} {node.name}"
        for name, node in functions()
        if (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_no_function_has_more_parameters_than_its_budget() -> None:
    many = [f"{name}:{node.lineno} {node.name}" for name, node in functions() if len(parameters(node)) > MAX_PARAMETERS]
    assert many == []


def test_no_import_hides_in_a_function() -> None:
    hidden = [
        f"{name}:{inner.lineno}"
        for name, node in functions()
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert hidden == []


def test_no_global_statement() -> None:
    found = [
        f"{name}:{node.lineno}" for name, every in nodes().items() for node in every if isinstance(node, ast.Global)
    ]
    assert found == []


def test_no_file_has_a_name_that_accepts_anything() -> None:
    assert [str(path) for path in FILES if path.name in FORBIDDEN_NAMES] == []


def caught(every: list[ast.AST]) -> set[str]:
    names = set()
    for node in every:
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names |= {kind.id for kind in kinds if isinstance(kind, ast.Name)} | (
                {"everything"} if None in kinds else set()
            )
    return names


def test_everything_is_caught_only_at_listed_process_edges() -> None:
    broad = {name for name, every in nodes().items() if caught(every) & {"Exception", "everything"}}
    assert broad <= set(BROAD_HANDLERS)


def test_base_exceptions_are_caught_only_where_something_is_given_back() -> None:
    assert {name for name, every in nodes().items() if "BaseException" in caught(every)} <= set(RELEASING_HANDLERS)


@pytest.mark.parametrize("word", ["sync_to_async", "async_to_sync", "database_sync_to_async"])
def test_no_hidden_thread_hops(word: str) -> None:
    users = [str(path.relative_to(ROOT)) for path in FILES if word in path.read_text(encoding="utf-8")]
    assert [name for name in users if name not in BRIDGES] == []


def test_every_module_opens_with_a_line_that_says_what_lives_there() -> None:
    silent = [name for name, tree in trees().items() if not ast.get_docstring(tree)]
    assert silent == []
