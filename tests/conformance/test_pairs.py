"""Every dialect of callers in front of every dialect of upstreams: one answer, exact shapes, the same price."""

from typing import Any

import msgspec
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from apps.gateway.dialects.messages.blocks import folded
from tests.conformance.answered import ANSWERS, Script
from tests.conformance.asked import body_of
from tests.conformance.callers import CALLERS
from tests.conformance.matrix import KINDS, Stage
from tests.factories import PRICE, snapshot
from tests.gateway.conftest import Bench, Call, bench, empty_store
from tests.upstream.conftest import patience, upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

__all__ = ["bench", "empty_store", "patience", "upstream"]
pytestmark = pytest.mark.asyncio
SHAPES: dict[str, tuple[TypeAdapter[Any], TypeAdapter[Any]]] = {
    "Messages": (TypeAdapter(Message), TypeAdapter(RawMessageStreamEvent)),
    "Responses": (TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)),
}


class Pair:
    """A caller's dialect in front of an upstream's."""

    def __init__(self, bench: Bench, upstream: ScriptedUpstream, caller: str, dialect: str) -> None:
        self.stage, self.caller, self.answers = Stage(bench, upstream), caller, ANSWERS[dialect]
        self.stage.offer(next(kind for kind in KINDS if kind.dialect == dialect))
        model = msgspec.structs.replace(bench.models[PUBLIC_MODEL], prices=(PRICE,))
        bench.runtime.catalog.snapshot = snapshot(model)
        self.whole, self.event = SHAPES[caller]

    async def ask(self, script: Script, **fields: Any) -> Call:
        path, least, _ = CALLERS[self.caller]
        shown: dict[str, Any] = (
            {"thinking": {"type": "enabled", "budget_tokens": 2_000}}
            if self.caller == "Messages"
            else {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        )
        call, _ = await self.stage.ask({**least, **shown, **fields}, script, path)
        return call

    async def events(self, script: Script) -> list[Any]:
        """The events of a stream, each looked at."""
        call = await self.ask(script, stream=True)
        told = [orjson.loads(block.partition(b"\ndata: ")[2]) for block in call.body.split(b"\n\n") if block]
        for event in told:
            if event["type"] not in ("ping", "error"):
                self.event.validate_python(event, strict=True)
        return told

    def content(self, answer: dict[str, Any]) -> list[Any]:
        return [_without_ids(each) for each in answer["content" if self.caller == "Messages" else "output"]]

    def folded(self, events: list[Any]) -> list[Any]:
        if self.caller == "Responses":
            return self.content(events[-1]["response"])
        return [_without_ids(each) for each in folded([event for event in events if "index" in event])]


def _without_ids(block: dict[str, Any]) -> dict[str, Any]:
    """Some ids are made up on the way, and packed texts hold them."""
    hidden = ("id", "call_id", "encrypted_content", "citations")
    shown = {name: value for name, value in block.items() if name not in hidden}
    return {**shown, "signature": "packed"} if str(shown.get("signature", "")).startswith("crun1.") else shown


@pytest.mark.parametrize("caller", sorted(CALLERS))
@pytest.mark.parametrize("dialect", sorted(ANSWERS))
async def test_a_stream_is_the_whole_answer_in_exact_shapes_at_the_price_of_a_chat(
    bench: Bench, upstream: ScriptedUpstream, caller: str, dialect: str
) -> None:
    pair = Pair(bench, upstream, caller, dialect)
    whole = await pair.ask(pair.answers.rich[0])
    pair.whole.validate_python(whole.json, strict=True)
    events = await pair.events(pair.answers.rich[1])
    assert pair.folded(events) == pair.content(whole.json)
    kinds = [block["type"] for block in whole.json["content" if caller == "Messages" else "output"]]
    assert [kind for kind in kinds if "tool" in kind or "call" in kind] == (
        ["tool_use"] * 2 if caller == "Messages" else ["function_call"] * 2
    )
    chat, _ = await pair.stage.ask(body_of({}), pair.answers.rich[0])
    ends = [bench.record(call) for call in (whole, chat)]
    assert (ends[0].cost_nanos, ends[0].tokens) == (ends[1].cost_nanos, ends[1].tokens)
    assert ends[0].cost_nanos > 0


@pytest.mark.parametrize("caller", sorted(CALLERS))
@pytest.mark.parametrize("dialect", sorted(ANSWERS))
async def test_answers_that_are_cut_filtered_torn_or_refused(
    bench: Bench, upstream: ScriptedUpstream, caller: str, dialect: str
) -> None:
    pair, is_messages = Pair(bench, upstream, caller, dialect), caller == "Messages"
    cut = (await pair.ask(pair.answers.cut_short)).json
    assert (cut["stop_reason"] if is_messages else cut["incomplete_details"]["reason"]) == (
        "max_tokens" if is_messages else "max_output_tokens"
    )
    filtered = (await pair.ask(pair.answers.filtered)).json
    assert (filtered["stop_reason"] if is_messages else filtered["incomplete_details"]["reason"]) == (
        "refusal" if is_messages else "content_filter"
    )
    for script in (pair.answers.torn, pair.answers.failing):
        last = (await pair.events(script))[-1]
        assert last["type"] == ("error" if is_messages else "response.failed")
    for script, status in (
        (pair.answers.too_long, 400), (pair.answers.overloaded, 529 if is_messages else 503),
        (pair.answers.unauthorized, 502),
    ):  # fmt: skip
        call = await pair.ask(script)
        assert call.status == status and call.json["error"]["message"]
        assert bench.record(call).cost_nanos == 0
