"""The matrix of docs/conformance.md: what becomes of each feature in each dialect, as seen from both sides of the
gateway over sockets."""

from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from apps.catalog.contracts import PriceVariant
from apps.gateway.providers import PROVIDERS
from tests.conformance.answered import ANSWERS, PLAIN, Script
from tests.conformance.asked import FEATURES, Feature, body_of
from tests.conformance.callers import CALLERS
from tests.conformance.crossing import Crossing
from tests.conformance.notes import Notes
from tests.factories import PRICE
from tests.gateway.conftest import Bench, Call
from tests.upstream.bedrock_shapes import CREDENTIAL
from tests.upstream.scripted import Answer, Received, ScriptedUpstream, folded

CHAT: Final = "/api/v1/chat/completions"


class Kind(NamedTuple):
    """A column: a dialect, with a kind of model where that matters."""

    heading: str
    dialect: str
    upstream_model: str = "secret-upstream-model"


KINDS: Final = (
    Kind("`openai`", "openai"),
    Kind("`openai-responses`, GPT-5", "openai-responses", "gpt-5-secret"),
    Kind("`azure`", "azure"),
    Kind("`anthropic`, Claude 4.5", "anthropic", "claude-sonnet-4-5"),
    Kind("`anthropic`, Claude 5", "anthropic", "claude-opus-5"),
    Kind("`gemini`, 2.5", "gemini", "gemini-2.5-flash"),
    Kind("`gemini`, 3", "gemini", "gemini-3-pro"),
    Kind("`bedrock`, Claude 4.5", "bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    Kind("`bedrock`, gpt-oss", "bedrock", "openai.gpt-oss-120b-1:0"),
    Kind("`bedrock`, others", "bedrock", "eu.amazon.nova-pro-v1:0"),
)
_PRICE: Final = PRICE.__class__(
    version_id=1, starts_at=0.0, input=100, output=100, cache_read=100, cache_write=100, reasoning=100,
    cache_write_1h=100, variants=tuple(
        PriceVariant(service_tier=tier, input=100, output=100, cache_read=100, cache_write=100, reasoning=100)
        for tier in ("flex", "priority")
    ),
)  # fmt: skip


class Stage(NamedTuple):
    """Where the features are tried."""

    bench: Bench
    upstream: ScriptedUpstream

    def offer(self, kind: Kind) -> None:
        options = {"region": "us-east-1"} if kind.dialect == "bedrock" else {}
        credential = {"api_key": CREDENTIAL} if kind.dialect == "bedrock" else {}
        named = {"upstream_model": kind.upstream_model, **credential}
        self.upstream.offer(self.bench, kind.dialect, options=options, prices=(_PRICE,), **named)

    async def ask(self, body: dict[str, Any], script: Script, path: str = CHAT) -> tuple[Call, Received | None]:
        """The answer, and what the upstream was sent, if it was."""
        self.upstream.requests.clear()
        self.upstream.answers = [Answer(script.pieces, script.status, cut=script.cut)]
        call = await self.bench.call(path, body)
        return call, self.upstream.requests[0] if self.upstream.requests else None


async def document(bench: Bench, upstream: ScriptedUpstream) -> str:
    """The whole page."""
    stage, notes = Stage(bench, upstream), Notes()
    assert {kind.dialect for kind in KINDS} == set(PROVIDERS), "a dialect has no column"
    sections = [Path(__file__).with_name("introduction.md").read_text(encoding="utf-8")]
    for heading, features in FEATURES.items():
        columns = [[await _asked(stage, kind, feature, notes) for feature in features] for kind in KINDS]
        names = [feature.name for feature in features]
        sections.append(_table(f"What is asked: {heading.lower()}", [kind.heading for kind in KINDS], names, columns))
    dialects = list(dict.fromkeys(kind.dialect for kind in KINDS))
    answered = [await _answered(stage, dialect) for dialect in dialects]
    rows = list(answered[0])
    columns = [[cells[row] for row in rows] for cells in answered]
    sections.append(_table("What is answered", [f"`{dialect}`" for dialect in dialects], rows, columns))
    for caller, (path, least, features) in CALLERS.items():
        columns = [
            [await _asked_otherwise(stage, kind, (path, least, feature), notes) for feature in features]
            for kind in KINDS
        ]
        names = [feature.name for feature in features]
        sections.append(_table(f"What callers of {caller} ask", [kind.heading for kind in KINDS], names, columns))
    sections.append((Path(__file__).with_name("crossing.md")).read_text(encoding="utf-8"))
    sections += await Crossing(stage, notes).tables()
    sections.append("## Why it is refused\n\n" + "\n".join(notes.lines()) + "\n")
    return "\n".join(sections)


async def _asked(stage: Stage, kind: Kind, feature: Feature, notes: Notes) -> str:
    """The cell of a feature of requests."""
    stage.offer(kind)
    script = PLAIN[kind.dialect]
    _, plain = await stage.ask(body_of(feature.plain), script)
    call, sent = await stage.ask(body_of(feature.fields), script)
    if sent is None:
        error = call.json["error"]
        param, sentence = error["param"], error["message"]
        assert call.status == 400 and param, (kind, feature, error)
        return f"refused ({notes.number(f'`{param}`: {sentence}')})"
    assert plain is not None, (kind, feature)
    changed = _changed(plain, sent)
    dropped = call.headers.get("x-crun-dropped-params", "")
    before, after = _leaves(body_of(feature.plain)), _leaves(body_of(feature.fields))
    is_same = changed == {path: value for path, value in after.items() if before.get(path) != value}
    words = "yes" if is_same else _in_short(changed)
    if dropped:
        return f"in part: {words}" if changed else "dropped"
    return words or "needs no word"


async def _asked_otherwise(stage: Stage, kind: Kind, asked: tuple[str, dict[str, Any], Feature], notes: Notes) -> str:
    """The cell of a feature of requests in another dialect: what becomes of it, without the vendor's words."""
    stage.offer(kind)
    path, least, feature = asked
    script = ANSWERS[kind.dialect].rich[1] if feature.fields.get("stream") else PLAIN[kind.dialect]
    _, plain = await stage.ask(least | feature.plain, PLAIN[kind.dialect], path)
    call, sent = await stage.ask(least | feature.fields, script, path)
    if sent is None:
        error = call.json["error"]
        param, sentence = error["param"], error["message"]
        assert call.status == 400 and param, (kind, feature, error)
        return f"refused ({notes.number(f'`{param}`: {sentence}')})"
    assert plain is not None and call.status == 200, (kind, feature, call.body)
    is_told = bool(_changed(plain, sent))
    if call.headers.get("x-crun-dropped-params"):
        return "in part" if is_told else "dropped"
    return "yes" if is_told else "needs no word"


def _changed(plain: Received, sent: Received) -> dict[str, Any]:
    """Path -> value of what the vendor was told beside."""
    before, after = _leaves(plain.json), _leaves(sent.json)
    changed = {path: value for path, value in after.items() if before.get(path) != value}
    changed |= {path: None for path in before if path not in after}
    if plain.target != sent.target:
        changed["address"] = None
    return changed


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Path -> value of everything in a JSON document that is no object and no list."""
    if isinstance(value, dict) and value:
        inner = [_leaves(each, f"{path}.{name}" if path else name) for name, each in value.items()]
    elif isinstance(value, list) and value:
        inner = [_leaves(each, f"{path}[{index}]") for index, each in enumerate(value)]
    else:
        return {path: value}
    return {place: leaf for found in inner for place, leaf in found.items()}


def _in_short(changed: dict[str, Any]) -> str:
    """The one path, what all of them are in, or what each is in."""
    paths = dict.fromkeys("".join("[]" if part.isdigit() else part for part in _split(path)) for path in changed)
    ways = [path.split(".") for path in paths]
    common = [steps[0] for steps in takewhile(lambda steps: len(set(steps)) == 1, zip(*ways, strict=False))]
    return ", ".join(f"`{each}`" for each in ([".".join(common)] if common else dict.fromkeys(way[0] for way in ways)))


def _split(path: str) -> list[str]:
    return path.replace("[", "\0").replace("]", "\0").split("\0")


async def _answered(stage: Stage, dialect: str) -> dict[str, str]:
    """Feature of answers -> its cell."""
    stage.offer(next(kind for kind in KINDS if kind.dialect == dialect))
    answers = ANSWERS[dialect]
    whole, _ = await stage.ask(body_of({}), answers.rich[0])
    streamed, _ = await stage.ask(body_of({"stream": True}), answers.rich[1])
    assert (whole.status, streamed.status) == (200, 200), (dialect, whole.body)
    said = (whole.json["choices"][0], folded(streamed.events)[0])
    cells = {name: _in_both(said, found) for name, found in _FOUND.items()}
    counts = [stage.bench.record(call).tokens for call in (whole, streamed)]
    buckets = [[name for name in counts[0].__struct_fields__ if getattr(each, name)] for each in counts]
    assert buckets[0] == buckets[1], (dialect, buckets)
    cells["buckets of usage"] = ", ".join(f"`{name}`" for name in buckets[0])
    for name, script in (("bound reached", answers.cut_short), ("answer filtered or refused", answers.filtered)):
        call, _ = await stage.ask(body_of({}), script)
        cells[name] = f"`{call.json['choices'][0]['finish_reason']}`"
    for name, script in (("stream torn", answers.torn), ("error in a stream", answers.failing)):
        call, _ = await stage.ask(body_of({"stream": True}), script)
        assert "[DONE]" not in call.events, (dialect, name)
        cells[name] = f"`{call.events[-1]['error']['code']}`, no `[DONE]`"
    for name, refusal in (
        ("prompt too long", answers.too_long),
        ("prompt filtered", answers.prompt_filtered),
        ("rate limit, overload", answers.overloaded),
        ("our credential refused", answers.unauthorized),
    ):
        cells[name] = await _refusal(stage, refusal) if refusal else "does not happen"
    return cells


async def _refusal(stage: Stage, script: Script) -> str:
    call, _ = await stage.ask(body_of({}), script)
    assert stage.bench.record(call).cost_nanos == 0
    return f"{call.status} `{call.json['error']['code']}`"


def _in_both(said: tuple[Any, Any], found: Callable[[Any], bool]) -> str:
    whole, streamed = map(found, said)
    if whole != streamed:
        return "not in streams" if whole else "in streams"
    return "yes" if whole else "no"


def _calls(choice: Any) -> list[Any]:
    return list(choice["message"].get("tool_calls", ()))


_FOUND: Final[dict[str, Callable[[Any], bool]]] = {
    "text": lambda choice: bool(choice["message"]["content"]),
    "thoughts (`reasoning_content`)": lambda choice: bool(choice["message"].get("reasoning_content")),
    "signed thoughts, to be sent back": lambda choice: bool(
        choice["message"].get("reasoning_details") or any("extra_content" in call for call in _calls(choice))
    ),
    "call of a function": lambda choice: bool(orjson.loads(_calls(choice)[0]["function"]["arguments"])),
    "calls made together": lambda choice: len(_calls(choice)) == 2,
    "call without arguments": lambda choice: _calls(choice)[1]["function"]["arguments"] == "{}",
    "`finish_reason: tool_calls`": lambda choice: choice["finish_reason"] == "tool_calls",
}
"""What is looked for in an answer, in one piece and as a stream."""


def _table(heading: str, columns: list[str], rows: list[str], cells: list[list[str]]) -> str:
    lines = [f"## {heading}", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(column[index] for column in cells)} |" for index, row in enumerate(rows)]
    return "\n".join(lines) + "\n"
