"""The sandbox as an upstream of the dialect `openai-responses`: every dialect of callers, with the truth to compare."""

from typing import Any

import msgspec
import pytest

from apps.usage.contracts import Outcome
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench, Call

pytestmark = pytest.mark.asyncio
TEXT = "one two three four five"
SCRIPT = {"reasoning_tokens": 4, "cached_tokens": 2}
TOOL = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}


def offer(bench: Bench, upstream_model: str) -> None:
    """The model under its own name, asked for Responses."""
    target = msgspec.structs.replace(
        bench.target(upstream_model), dialect="openai-responses", options={"custom_tools": "yes"}, is_sandbox=True
    )
    bench.models[upstream_model] = offered(id=upstream_model, targets=(target,), input_modalities=("text", "image"))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


async def ask(bench: Bench, path: str, model: str, *, stream: bool, **fields: Any) -> Call:
    offer(bench, model)
    given = {"responses": {"input": TEXT, "store": False}, "messages": {"max_tokens": 50}}.get(path, {})
    if path != "responses":
        given["messages"] = [{"role": "user", "content": TEXT}]
    body = {"model": model, "stream": stream, "sandbox": SCRIPT, **given, **fields}
    return await bench.call(f"/api/v1/{path}", body)


async def test_every_dialect_gets_its_words_and_costs_what_the_upstream_truly_used(bench: Bench) -> None:
    costs = set()
    for path in ("chat/completions", "responses", "messages"):
        for stream in (False, True):
            call = await ask(bench, path, "sandbox-echo", stream=stream)
            assert call.status == 200 and b"five" in call.body
            record, truth = bench.record(call), await bench.truth_of(call)
            tokens = record.tokens
            assert (record.outcome, record.estimated, truth.outcome) == (Outcome.COMPLETED, False, "complete")
            assert (tokens.input + tokens.cache_read, tokens.output + tokens.reasoning) == (5, 9)
            assert (tokens.cache_read, tokens.reasoning) == (truth.cached_tokens, truth.reasoning_tokens) == (2, 4)
            costs.add(record.cost_nanos)
    assert len(costs) == 1


async def test_a_stream_that_breaks_is_billed_for_what_came(bench: Bench) -> None:
    for path, ends in (
        ("chat/completions", b'"error"'),
        ("responses", b"response.failed"),
        ("messages", b"event: error"),
    ):
        for fault in ("cut-3", "error-event-3", "no-done"):
            call = await ask(bench, path, f"sandbox-fault-{fault}", stream=True, sandbox={})
            assert ends in call.body, (path, fault)
            record = bench.record(call)
            assert (record.outcome, record.estimated) == (Outcome.FAILED, True), (path, fault)
            assert record.tokens.output == (5 if fault == "no-done" else 3), (path, fault)


async def test_functions_are_called_in_every_dialect(bench: Bench) -> None:
    tools = {
        "chat/completions": {"type": "function", "function": {"name": "weather", "parameters": TOOL}},
        "responses": {"type": "function", "name": "weather", "parameters": TOOL},
        "messages": {"name": "weather", "input_schema": TOOL},
    }
    for path, tool in tools.items():
        for stream in (False, True):
            call = await ask(bench, path, "sandbox-tools", stream=stream, tools=[tool], sandbox={})
            assert call.status == 200 and b"weather" in call.body
            assert bench.record(call).tokens.output == (await bench.truth_of(call)).completion_tokens


async def test_only_a_sandbox_is_told_its_script(bench: Bench) -> None:
    offer(bench, "sandbox-echo")
    (target,) = bench.models["sandbox-echo"].targets
    live = msgspec.structs.replace(target, is_sandbox=False)
    bench.models["sandbox-echo"] = offered(id="sandbox-echo", targets=(live,))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    chat = await bench.chat("sandbox-echo", TEXT, sandbox=SCRIPT)
    assert chat.headers["x-crun-dropped-params"] == "sandbox"
    native = await bench.call(
        "/api/v1/responses", {"model": "sandbox-echo", "input": TEXT, "sandbox": SCRIPT, "store": False}
    )
    assert [bench.record(call).tokens.reasoning for call in (chat, native)] == [0, 0]
