"""What docs/decisions says is enforced here: which libraries the data path may know, and where."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def importers(library: str, *, below: str) -> list[str]:
    """The files that import a library, by their paths from the root."""
    found = []
    for path in sorted((ROOT / below).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if library not in text:
            continue  # parsing takes a hundred times as long
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == library for name in names):
                found.append(str(path.relative_to(ROOT)))
                break
    return found


def test_the_data_path_knows_one_http_client_and_it_is_ours() -> None:
    for library in ("aiohttp", "httpx", "requests", "urllib3"):
        assert importers(library, below="apps/gateway") == []
    assert importers("httptools", below="apps/gateway") == ["apps/gateway/providers/connection.py"]


def test_httpx_serves_what_is_off_the_data_path() -> None:
    assert importers("httpx", below="apps") != []


def test_one_file_knows_stripes_library() -> None:
    assert importers("stripe", below="apps") == ["apps/billing/payments/stripe.py"]
    assert importers("stripe", below="crun") == []


def test_no_request_calls_redis() -> None:
    assert importers("redis", below="apps/gateway") == ["apps/gateway/changes.py"]
