"""YAML as nodes that know their line, and readers that turn them into values and collect every problem.

Only what a configuration file needs: no tags, no anchors or aliases (they can unfold into gigabytes),
bounded depth. Values are read from their text: a price never becomes a binary float, `no` never False."""

import difflib
import json
import re
import unicodedata
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.reader import Reader as CharacterReader

MAX_CHARACTERS = 2_000_000
MAX_DEPTH = 10
_SHOWN_CHARACTERS = 60
_NULLS = {"", "~", "null", "Null", "NULL"}

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it (ten times faster), else the one in Python."""


@dataclass(frozen=True)
class Problem:
    """What is wrong, and where: lines count from 1, the path names the value (`models[2].prices[0].from`)."""

    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.line}: {self.path}: {self.message}" if self.path else f"{self.line}: {self.message}"


class SyntaxProblem(Exception):
    """The text is no YAML, or YAML beyond what is accepted here; reading cannot go on."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(line, "", message)


class Refusal(Exception):
    """Raised by a converter: says what the value must be, and whether the message may repeat the value."""

    def __init__(self, message: str, *, repeats_value: bool = True) -> None:
        super().__init__(message)
        self.repeats_value = repeats_value


@dataclass(frozen=True)
class Scalar:
    """A single value as written."""

    line: int
    text: str
    quoted: bool

    @property
    def is_null(self) -> bool:
        return not self.quoted and self.text in _NULLS


@dataclass(frozen=True)
class Items:
    """A list."""

    line: int
    nodes: tuple["Node", ...]


@dataclass(frozen=True)
class Table:
    """A mapping as written: a key that stands there twice is here twice."""

    line: int
    entries: tuple[tuple[Scalar, "Node"], ...]

    def get(self, key: str) -> "Node | None":
        return next((node for name, node in self.entries if name.text == key), None)


Node: TypeAlias = Scalar | Items | Table


@dataclass
class Findings:
    """The problems (which refuse the document) and warnings (which do not) found so far."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Spot:
    """A node at its place in the document, with the findings that it may add to."""

    node: Node
    path: str
    findings: Findings

    def refuse(self, message: str) -> None:
        self.findings.problems.append(Problem(self.node.line, self.path, message))

    def warn(self, message: str) -> None:
        self.findings.warnings.append(Problem(self.node.line, self.path, message))

    def item(self, index: int, node: Node) -> "Spot":
        return Spot(node, f"{self.path}[{index}]", self.findings)

    def key(self, name: str, node: Node) -> "Spot":
        return Spot(node, f"{self.path}.{name}" if self.path else name, self.findings)


Reader: TypeAlias = Callable[[Spot], Any]
"""Turns the node of a spot into a value; on a problem notes it there and returns None."""

Convert: TypeAlias = Callable[[Scalar], Any]
"""Turns a single value's text into what is kept; raises Refusal."""


@dataclass(frozen=True)
class Key:
    """How one key of a mapping is read, and under which name its value is kept."""

    read: Reader
    name: str
    required: bool = False


def compose(text: str) -> Node:
    """The one YAML document in `text`. Raises SyntaxProblem."""
    if len(text) > MAX_CHARACTERS:
        raise SyntaxProblem(1, f"is longer than {MAX_CHARACTERS} characters; split it")
    unprintable = CharacterReader.NON_PRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise SyntaxProblem(line, f"has the character U+{ord(unprintable.group()):04X}, which YAML does not allow")
    try:
        return _document(event for event in yaml.parse(text, Loader=_YAML_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise SyntaxProblem(mark.line + 1 if mark else 1, f"is not valid YAML: {reason}") from error


def _document(events: Iterator[yaml.Event]) -> Node:
    root: Node | None = None
    for event in events:
        if not isinstance(event, yaml.NodeEvent):
            continue
        if root is not None:
            raise SyntaxProblem(_line(event), "a second YAML document starts here; one is expected")
        root = _node(events, event, depth=1)
    if root is None:
        raise SyntaxProblem(1, "is empty")
    return root


def _node(events: Iterator[yaml.Event], event: yaml.Event, *, depth: int) -> Node:
    line = _line(event)
    if depth > MAX_DEPTH:
        raise SyntaxProblem(line, f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise SyntaxProblem(line, "anchors (&) and aliases (*) are not accepted here; quote the value or repeat it")
    if getattr(event, "tag", None):
        raise SyntaxProblem(line, "tags (!) are not accepted here; quote the value")
    if isinstance(event, yaml.ScalarEvent):
        return Scalar(line, event.value, quoted=bool(event.style))
    if isinstance(event, yaml.SequenceStartEvent):
        return Items(line, tuple(_children(events, yaml.SequenceEndEvent, depth=depth)))
    children = list(_children(events, yaml.MappingEndEvent, depth=depth))
    entries = []
    for name, value in zip(children[::2], children[1::2], strict=True):
        if not isinstance(name, Scalar):
            raise SyntaxProblem(name.line, "a key must be a single word")
        entries.append((name, value))
    return Table(line, tuple(entries))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _children(events: Iterator[yaml.Event], end: type[yaml.Event], *, depth: int) -> Iterator[Node]:
    for event in events:
        if isinstance(event, end):
            return
        yield _node(events, event, depth=depth + 1)


def shown(text: str) -> str:
    """A value as it is repeated in a message: quoted, on one line, cut."""
    return json.dumps(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…", ensure_ascii=False)


def hint(word: str, known: Collection[str]) -> str:
    """`; did you mean "…"?` when something known is close, else ""."""
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def scalar(convert: Convert) -> Reader:
    """A reader of one value."""

    def read(spot: Spot) -> Any:
        if not isinstance(spot.node, Scalar):
            spot.refuse(f"must be a single value; got {_described(spot.node)}")
            return None
        try:
            return convert(spot.node)
        except Refusal as refusal:
            got = f"; got {shown(spot.node.text)}" if refusal.repeats_value else ""
            spot.refuse(f"{refusal}{got}")
            return None

    return read


def text(max_characters: int, *, may_be_empty: bool = False, has_lines: bool = False) -> Convert:
    """Converts to text without control characters; on one line also without invisible ones, which mislead."""
    hidden = {"Cc", "Cs", "Cn", "Zl", "Zp"} if has_lines else {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
    kept = "\n\t" if has_lines else ""
    expectation = f"must be text{'' if has_lines else ' on one line'}, 1 to {max_characters} characters"

    def convert(written: Scalar) -> str:
        is_clean = all(
            char in kept or (unicodedata.category(char) not in hidden and char != "\ufeff") for char in written.text
        )
        is_blank = not written.text.strip() and not (may_be_empty and not written.text)
        if is_blank or not is_clean or len(written.text) > max_characters:
            raise Refusal(expectation)
        return written.text

    return convert


def matching(pattern: re.Pattern[str], expectation: str, *, is_secret: bool = False) -> Convert:
    """Converts to text that fits the pattern as a whole; `expectation` completes "must be ...".

    A secret is never repeated in the message."""

    def convert(written: Scalar) -> str:
        if not pattern.fullmatch(written.text):
            raise Refusal(f"must be {expectation}", repeats_value=not is_secret)
        return written.text

    return convert


def one_of(choices: Collection[str]) -> Convert:
    """Converts to one of the words."""

    def convert(written: Scalar) -> str:
        if written.text not in choices:
            raise Refusal(f"must be one of {', '.join(choices)}")
        return written.text

    return convert


def integer(lowest: int, highest: int) -> Convert:
    """Converts decimal digits."""

    def convert(written: Scalar) -> int:
        if not re.fullmatch(r"[0-9]{1,10}", written.text) or not lowest <= int(written.text) <= highest:
            raise Refusal(f"must be a whole number from {lowest} to {highest}")
        return int(written.text)

    return convert


def true_or_false(written: Scalar) -> bool:
    """A converter: `true` or `false`, not the other spellings that YAML 1.1 had."""
    if written.text not in ("true", "false"):
        raise Refusal("must be true or false")
    return written.text == "true"


def items(
    read_item: Reader, *, identity: Callable[[Any], Hashable], described: str, may_be_empty: bool = True
) -> Reader:
    """A reader of a list as a tuple; no two items may have the same `identity` (in messages: `described`)."""

    def read(spot: Spot) -> tuple[Any, ...] | None:
        if not isinstance(spot.node, Items):
            spot.refuse(f"must be a list; got {_described(spot.node)}")
            return None
        if not spot.node.nodes and not may_be_empty:
            spot.refuse("must name at least one")
        first_line: dict[Hashable, int] = {}
        values = []
        for index, child in enumerate(spot.node.nodes):
            here = spot.item(index, child)
            value = read_item(here)
            if value is None:
                continue
            if identity(value) in first_line:
                here.refuse(f"the same {described} stands there already, on line {first_line[identity(value)]}")
            first_line.setdefault(identity(value), child.line)
            values.append(value)
        return tuple(values)

    return read


def read_table(spot: Spot, keys: Mapping[str, Key]) -> dict[str, Any] | None:
    """The values of a mapping by name; None when it has a problem. An empty value counts as absent."""
    if not isinstance(spot.node, Table):
        spot.refuse(f"must be a mapping with {', '.join(keys)}; got {_described(spot.node)}")
        return None
    problems_before = len(spot.findings.problems)
    values: dict[str, Any] = {}
    first_line: dict[str, int] = {}
    for name, child in spot.node.entries:
        key, here = keys.get(name.text), spot.key(name.text, child)
        if name.text in first_line:
            spot.key(name.text, name).refuse(f"stands there already, on line {first_line[name.text]}")
            continue
        first_line[name.text] = name.line
        if key is None:
            known = f"unknown key{hint(name.text, keys)} (known: {', '.join(keys)})"
            spot.key(name.text, name).refuse(known)
        elif not (isinstance(child, Scalar) and child.is_null):
            values[key.name] = key.read(here)
        elif key.required:
            here.refuse("is required; got nothing")
    for missing in (name for name, key in keys.items() if key.required and name not in first_line):
        spot.key(missing, spot.node).refuse("is required")
    return values if len(spot.findings.problems) == problems_before else None


def words(spot: Spot) -> dict[str, Scalar] | None:
    """A reader of a mapping of single values under names that are checked later; an empty value counts as absent."""
    if not isinstance(spot.node, Table):
        spot.refuse(f"must be a mapping; got {_described(spot.node)}")
        return None
    found: dict[str, Scalar] = {}
    for name, child in spot.node.entries:
        if name.text in found:
            spot.key(name.text, name).refuse(f"stands there already, on line {found[name.text].line}")
        elif not isinstance(child, Scalar):
            spot.key(name.text, child).refuse(f"must be a single value; got {_described(child)}")
        elif not child.is_null:
            found[name.text] = child
    return found


def _described(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.is_null else shown(node.text)
    return "a list" if isinstance(node, Items) else "a mapping"
