"""Every dialect of callers before every dialect of upstreams, feature by feature: a table of docs/conformance.md.

A cell is green when the upstream heard what was asked, in its vendor's shape; the client was told what was answered, in
the shape of its SDK, whole and as a stream; and the record costs what the vendor's own usage comes to."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from apps.catalog.contracts import Price
from apps.gateway.providers import PROVIDERS
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts
from tests.conformance.answered import ANSWERS, Script
from tests.conformance.heard import Heard, heard
from tests.conformance.notes import Notes
from tests.conformance.said import UPSTREAMS, Answer, Part
from tests.conformance.told import Told, told_streamed, told_whole
from tests.gateway.conftest import Call
from tests.upstream import bedrock_shapes, gemini_shapes
from tests.upstream.scripted import PUBLIC_MODEL, Received

SCHEMA: Final = {
    "type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"], "additionalProperties": False,
}  # fmt: skip
NO_SCHEMA: Final = {"type": "object"}
PRICE: Final = Price(
    version_id=1, starts_at=0.0, input=1_000_000, cache_read=10_000_000, cache_write=100_000_000,
    cache_write_1h=1_000_000_000, output=10_000_000_000, reasoning=100_000_000_000,
)  # fmt: skip
"""In powers of ten: a cost in nano-dollars tells how many tokens of which kind were billed."""
TOKENS: Final = {
    "openai": TokenCounts(input=8, cache_read=4, output=4, reasoning=5),
    "openai-responses": TokenCounts(input=8, cache_read=4, output=4, reasoning=5),
    "azure": TokenCounts(input=8, cache_read=4, output=4, reasoning=5),
    "anthropic": TokenCounts(input=11, cache_read=3, cache_write=1, cache_write_1h=1, output=6),
    "gemini": gemini_shapes.TOKENS,
    "bedrock": bedrock_shapes.TOKENS,
}
"""What the usage of each vendor's answers comes to."""
HELLO: Final = {"role": "user", "content": "hello"}
WELL: Final[Answer] = (Part("text", "Well done."),)
WEATHER: Final = Part("call", "weather", {"town": "Ulm"}, "t_1", "c2ln")
TIME: Final = Part("call", "time", {}, "t_2")
THOUGHT: Final = Part("thought", "Let me think.", signature="c2ln")
ASKED: Final = ("user", [("text", "hello")])
Asks = dict[str, dict[str, Any]]
"""Dialect of callers -> fields of its request, which may be none that it has."""


class Feature(NamedTuple):
    """A row: how each caller asks for it, what the upstream must hear, and what it answers."""

    asks: Asks
    hears: Callable[[Heard], bool]
    answer: Answer = WELL
    reason: str = "stop"
    script: Callable[[str], Script] | None = None
    """Another answer than that, by the dialect of the upstream; it comes in one piece."""


def _of_chat(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def _everywhere(**fields: Any) -> Asks:
    return dict.fromkeys(PATHS, fields)


PATHS: Final = {
    "chat": "chat/completions", "completions": "completions", "messages": "messages", "responses": "responses",
}  # fmt: skip
LEAST: Final[Asks] = {
    "chat": {"messages": [HELLO]},
    "completions": {"prompt": "hello", "max_tokens": 4_000},
    "messages": {"messages": [HELLO], "max_tokens": 4_000},
    "responses": {"input": "hello"},
}
_CHAT_TOOLS: Final = {"tools": [_of_chat("weather", SCHEMA), _of_chat("time", NO_SCHEMA)]}
_TOOLS: Final[Asks] = {
    "chat": _CHAT_TOOLS,
    "completions": _CHAT_TOOLS,
    "messages": {"tools": [{"name": "weather", "input_schema": SCHEMA}, {"name": "time", "input_schema": NO_SCHEMA}]},
    "responses": {"tools": [
        {"type": "function", "name": "weather", "parameters": SCHEMA},
        {"type": "function", "name": "time", "parameters": NO_SCHEMA, "strict": False},
    ]},
}  # fmt: skip
_CHAT_CALL: Final = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"town":"Ulm"}'}}
_CHAT_RESULT: Final = {"messages": [
    HELLO, {"role": "assistant", "content": None, "tool_calls": [_CHAT_CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "sun"},
]}  # fmt: skip
_USED: Final = {"type": "tool_use", "id": "a", "name": "weather", "input": {"town": "Ulm"}}
_RESULT: Final[Asks] = {
    "chat": _CHAT_RESULT,
    "completions": _CHAT_RESULT,
    "messages": {"messages": [
        HELLO, {"role": "assistant", "content": [_USED]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "sun"}]},
    ]},
    "responses": {"input": [
        HELLO, {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"town":"Ulm"}'},
        {"type": "function_call_output", "call_id": "a", "output": "sun"},
    ]},
}  # fmt: skip
_URL: Final = "data:image/png;base64,AAAA"
_IMAGE: Final = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
_IMAGES: Final[Asks] = {
    "chat": {"messages": [{"role": "user", "content": [
        {"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {"url": _URL}}]}]},
    "completions": {"prompt": [{"type": "image_url", "image_url": {"url": _URL}}]},
    "messages": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}, _IMAGE]}]},
    "responses": {"input": [{"role": "user", "content": [
        {"type": "input_text", "text": "hello"}, {"type": "input_image", "image_url": _URL, "detail": "auto"}]}]},
}  # fmt: skip
_CHAT_FORMAT: Final = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}
}
_SCHEMAS: Final[Asks] = {
    "chat": _CHAT_FORMAT,
    "completions": _CHAT_FORMAT,
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "responses": {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}}},
}
_REASONING: Final[Asks] = {
    "chat": {"reasoning_effort": "high"},
    "completions": {"reasoning_effort": "high"},
    "messages": {"thinking": {"type": "enabled", "budget_tokens": 2_000}, "output_config": {"effort": "high"}},
    "responses": {"reasoning": {"effort": "high", "summary": "auto"}},
}
_LIMITS: Final[Asks] = {caller: {"max_tokens": 7} for caller in PATHS} | {"responses": {"max_output_tokens": 7}}
_STOPS: Final[Asks] = {caller: {"stop": ["END"]} for caller in PATHS} | {"messages": {"stop_sequences": ["END"]}}
_INSTRUCTED: Final[Asks] = {
    "chat": {"messages": [{"role": "system", "content": "Be brief."}, HELLO]},
    "completions": {},
    "messages": {"system": "Be brief."},
    "responses": {"instructions": "Be brief."},
}


def _hears_tools(asked: Heard) -> bool:
    return asked.tools.keys() == {"weather", "time"} and SCHEMA.items() <= asked.tools["weather"].items()


FEATURES: Final = {
    "text": Feature(_INSTRUCTED, lambda asked: asked.turns == [ASKED] and asked.system in ("Be brief.", "")),
    "stream": Feature(_everywhere(), lambda asked: asked.turns == [ASKED]),
    "tools": Feature(_TOOLS, _hears_tools, (WEATHER,), "tool_calls"),
    "parallel tools": Feature(_TOOLS, _hears_tools, (Part("text", "I look."), WEATHER, TIME), "tool_calls"),
    "tool result": Feature(
        {caller: _TOOLS[caller] | _RESULT[caller] for caller in PATHS},
        lambda asked: asked.turns[1:] == [
            ("assistant", [("call", "weather", {"town": "Ulm"})]), ("user", [("result", "a", "sun")])
        ],
    ),
    "image": Feature(_IMAGES, lambda asked: asked.turns == [("user", [("text", "hello"), ("image", "AAAA")])]),
    "JSON schema": Feature(_SCHEMAS, lambda asked: asked.schema == SCHEMA, (Part("text", '{"town":"Ulm"}'),)),
    "reasoning": Feature(_REASONING, lambda asked: asked.thinks, (THOUGHT, *WELL)),
    "max tokens": Feature(_LIMITS, lambda asked: asked.limit == 7, WELL, "length"),
    "stop": Feature(_STOPS, lambda asked: asked.stops == ["END"]),
    "answer filtered": Feature(
        _everywhere(), lambda asked: asked.turns == [ASKED], (Part("text", "Well"),), "content_filter",
        lambda dialect: ANSWERS[dialect].filtered,
    ),
}  # fmt: skip
ERROR, MIDWAY = "error", "error in a stream"
UPSTREAM_MODELS: Final = {
    "openai": "gpt-5", "openai-responses": "gpt-5", "azure": "gpt-5", "anthropic": "claude-sonnet-4-5",
    "gemini": "gemini-2.5-flash",
    "bedrock": "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
}  # fmt: skip
HEADINGS: Final = {
    "chat": "Chat Completions", "completions": "Completions", "messages": "Messages", "responses": "Responses",
}  # fmt: skip


class Crossing:
    """Tries all cells on one stage, and looks at the records when all is done: the journal is read once."""

    def __init__(self, stage: Any, notes: Notes) -> None:
        """`stage` has a bench and an upstream, as the Stage of tests/conformance/matrix.py."""
        assert set(UPSTREAM_MODELS) == set(PROVIDERS), "a dialect has no column"
        self._stage, self._notes = stage, notes
        self._billed: list[tuple[str, Call, TokenCounts | None]] = []
        """Cell, its request, and what must be billed; None for one that failed before it cost anything."""

    async def tables(self) -> list[str]:
        """A table for each dialect of callers."""
        columns = {caller: [await self._column(caller, dialect) for dialect in UPSTREAM_MODELS] for caller in PATHS}
        self._check_records()
        rows = [*FEATURES, ERROR, MIDWAY]
        headings = [f"`{dialect}`" for dialect in UPSTREAM_MODELS]
        return [_table(f"{HEADINGS[caller]}, before", headings, rows, cells) for caller, cells in columns.items()]

    async def _column(self, caller: str, dialect: str) -> list[str]:
        named = {"upstream_model": UPSTREAM_MODELS[dialect]}
        if dialect == "bedrock":
            named["api_key"] = bedrock_shapes.CREDENTIAL
        options = {"region": "us-east-1"} if dialect == "bedrock" else {}
        self._stage.upstream.offer(self._stage.bench, dialect, options=options, prices=(PRICE,), **named)
        cells = []
        for name, feature in FEATURES.items():
            cell = f"{caller} before {dialect}: {name}"
            try:
                cells.append(await self._cell(cell, caller, dialect, feature))
            except Exception as error:
                error.add_note(cell)
                raise
        return [*cells, await self._error(caller, dialect), await self._midway(caller, dialect)]

    async def _ask(self, caller: str, fields: dict[str, Any], script: Script) -> tuple[Call, Received | None]:
        body = {"model": PUBLIC_MODEL, **LEAST[caller], **fields}
        call, received = await self._stage.ask(body, script, f"/api/v1/{PATHS[caller]}")
        return call, received

    async def _cell(self, cell: str, caller: str, dialect: str, feature: Feature) -> str:
        whole, stream = UPSTREAMS[dialect]
        scripts = [
            (False, feature.script(dialect) if feature.script else Script([whole(feature.answer, feature.reason)])),
            (True, None if feature.script else Script([stream(feature.answer, feature.reason, 3)])),
        ]
        lost: dict[str, None] = {}
        for is_stream, script in scripts:
            if script is None:
                continue
            fields = {**feature.asks[caller], **({"stream": True} if is_stream else {})}
            call, received = await self._ask(caller, fields, script)
            if received is None:
                error = call.json["error"]
                param, sentence = error["param"], error["message"]
                assert call.status == 400 and sentence and param, (cell, error)
                return f"refused ({self._notes.number(f'`{param}`: {sentence}')})"
            assert call.status == 200, (cell, call.body)
            lost |= dict.fromkeys(call.headers.get("x-crun-dropped-params", "").split(", "))
            understood = heard(dialect, received)
            assert feature.hears(understood) and understood.streams == is_stream, (cell, understood)
            told = (told_streamed if is_stream else told_whole)(caller, call.body)
            tokens = TOKENS[dialect] if not feature.script else None
            assert told._replace(tokens=(0, 0), cost=0.0) == _expected(caller, feature), (cell, told)
            if tokens is not None:
                assert told.tokens == (tokens.all_input, tokens.all_output), (cell, told.tokens)
                self._billed.append((cell, call, tokens))
                assert round(told.cost * 1e9) == _cost(tokens), (cell, told.cost)
        return ", without ".join(["yes", *(f"`{name}`" for name in lost if name)])

    async def _error(self, caller: str, dialect: str) -> str:
        """What the vendor refuses, is too busy for, or does not let us in for."""
        answers, is_messages = ANSWERS[dialect], caller == "messages"
        for script, status in (
            (answers.too_long, 400), (answers.overloaded, 529 if is_messages else 503), (answers.unauthorized, 502),
        ):  # fmt: skip
            for is_stream in (False, True):
                call, _ = await self._ask(caller, {"stream": is_stream}, script)
                error = call.json["error"]
                assert call.status == status and error["message"], (caller, dialect, call.body)
                assert not is_messages or call.json["type"] == "error"
                self._billed.append((f"{caller} before {dialect}: error", call, None))
        return "yes"

    async def _midway(self, caller: str, dialect: str) -> str:
        """A stream that breaks off, and one that says that it failed: both end as an error, after what came."""
        for script in (ANSWERS[dialect].torn, ANSWERS[dialect].failing):
            call, _ = await self._ask(caller, {"stream": True}, script)
            told = told_streamed(caller, call.body)
            assert told.reason == "error" and told.text, (caller, dialect, call.body)
        return "yes"

    def _check_records(self) -> None:
        ends = {end.opened.request_id: end for end in self._stage.bench.journal() if isinstance(end, RequestClosed)}
        for cell, call, tokens in self._billed:
            end = ends[call.request_id]
            if tokens is None:
                assert (end.outcome, end.cost_nanos) == (Outcome.FAILED, 0), cell
                continue
            assert end.tokens == tokens, (cell, end.tokens)
            assert end.cost_nanos == _cost(tokens) and not end.estimated, (cell, end.cost_nanos)


def _expected(caller: str, feature: Feature) -> Told:
    parts = feature.answer
    return Told(
        "".join(part.text for part in parts if part.kind == "text"),
        "" if caller == "completions" else "".join(part.text for part in parts if part.kind == "thought"),
        tuple((part.text, part.arguments) for part in parts if part.kind == "call"),
        feature.reason,
    )


def _cost(tokens: TokenCounts) -> int:
    """In nano-dollars, by hand."""
    counts = msgspec.structs.asdict(tokens)
    return sum(count * getattr(PRICE, name) for name, count in counts.items() if count) // 10**6


def _table(heading: str, columns: list[str], rows: list[str], cells: list[list[str]]) -> str:
    lines = [f"### {heading}", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(column[index] for column in cells)} |" for index, row in enumerate(rows)]
    return "\n".join(lines) + "\n"
