"""The documents speak of things that exist: links, files, symbols, commands, targets of make."""

import re
from pathlib import Path

import pytest

from crun.cli import WITH_DJANGO, WITHOUT_DJANGO

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
IMAGE = re.compile(r"<img [^>]*src=\"([^\"]+)\"")
FILE = re.compile(r"`((?:apps|bench|crun|deploy|docs|static|templates|tests)/[\w./-]+)`(?: \(([^)]*)\))?")
SYMBOL = re.compile(r"`(\w+)`")
MAKE = re.compile(r"`make ([a-z]+)`|^(?:\w+=\S+ )*make ([a-z]+)", re.MULTILINE)
CRUN = re.compile(r"`(?:\.venv/bin/)?crun ([a-z]+)|^\.venv/bin/crun ([a-z]+)", re.MULTILINE)
NOWHERE = re.compile(r"(?i)\bTODO\b|\bFIXME\b|\bTBD\b|lorem ipsum")

each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def anchors(page: Path) -> set[str]:
    """The fragments under which a page's headings can be linked."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_expected_pages_are_there() -> None:
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/quickstart.md"} <= names
    assert len([name for name in names if name.startswith("docs/decisions/")]) >= 6


@each_page
def test_its_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in [*LINK.findall(text), *IMAGE.findall(text)]:
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (fragment and fragment not in anchors(linked)):
            broken.append(target)
    assert broken == []


@each_page
def test_the_files_and_symbols_it_names_exist(page: Path) -> None:
    missing = []
    for name, described in FILE.findall(page.read_text(encoding="utf-8")):
        path = ROOT / name
        if not path.exists():
            missing.append(name)
        elif path.suffix == ".py":
            source = path.read_text(encoding="utf-8")
            missing += [
                f"{name}: {symbol}"
                for symbol in SYMBOL.findall(described or "")
                if not re.search(rf"\b{symbol}\b", source)
            ]
    assert missing == []


@each_page
def test_the_commands_it_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked_of_make = {name for groups in MAKE.findall(text) for name in groups if name}
    assert asked_of_make - targets == set()
    asked_of_crun = {name for groups in CRUN.findall(text) for name in groups if name}
    assert asked_of_crun - {*WITHOUT_DJANGO, *WITH_DJANGO} == set()


@each_page
def test_it_is_finished(page: Path) -> None:
    assert NOWHERE.findall(page.read_text(encoding="utf-8")) == []


def test_decisions_are_numbered_without_gaps_and_say_what_enforces_them() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for part in ("# " + page.name[:4], "## Context", "## Decision", "## Consequences", "## Enforced by"):
            assert part in text, f"{page.name} has no {part!r}"
