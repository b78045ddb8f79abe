"""What vendors and their servers really send, one file each with its source, as clients of every dialect see it."""

from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml

from apps.gateway.dialects.chat import parse_chat
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.metering.token_usage import read_usage
from apps.usage.contracts import TokenCounts
from tests.conformance.said import VIEWS, events_of, relayed, seen
from tests.conformance.test_turns import sent
from tests.conformance.told import Told, told_streamed

QUIRKS: Final = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("quirks").glob("*.yaml"))
}
REQUESTS: Final = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("requests").glob("*.yaml"))
}
SIZES: Final = (100_000, 1, 61)
"""In one read, a byte a read, and in between."""


def expected(caller: str, told: dict[str, Any]) -> Told:
    """What a client of this dialect should understand."""
    is_text = caller == "completions"
    text, refusal = told.get("text", ""), told.get("refusal", "")
    shows_refusal = caller in ("completions", "messages")
    calls = () if is_text else tuple((name, arguments) for name, arguments in told.get("calls", ()))
    thought = "" if is_text or told["reason"] == "error" else told.get("thought", "")
    reason = "stop" if is_text and told["reason"] == "tool_calls" else told["reason"]
    says_calls = told.get("ends_with_stop") and caller == "chat"
    return Told(text + (refusal if shows_refusal else ""), thought, calls, "stop" if says_calls else reason)


@pytest.mark.parametrize("caller", VIEWS)
@pytest.mark.parametrize("quirk", QUIRKS)
def test_every_client_understands_what_was_meant(quirk: str, caller: str) -> None:
    recorded = QUIRKS[quirk]
    assert recorded["source"].startswith("https://") and recorded["what"], "each file names its source"
    raw, told = recorded["stream"].encode() + b"\n", recorded["told"]
    for size in SIZES:
        blocks = relayed(recorded["dialect"], [raw[start : start + size] for start in range(0, len(raw), size)])
        body = seen(caller, blocks)
        read = told_streamed(caller, body)
        assert read._replace(tokens=(0, 0), cost=0.0) == expected(caller, told), (size, body)
        if told["reason"] != "error":
            usage = events_of(blocks[-1])[-2]["usage"]
            assert read_usage(usage, bound=10_000).tokens == TokenCounts(**told["usage"]), size
        if signature := told.get("signature"):
            assert caller == "completions" or signature in body.decode() or "encrypted_content" in body.decode()
        if "kinds" in told and caller in ("messages", "responses"):
            assert kinds(caller, body) == told["kinds"]


def kinds(caller: str, body: bytes) -> list[str]:
    """What follows what in an answer."""
    names = {"tool_use": "call", "function_call": "call", "text": "text", "message": "text"}
    begun = {"messages": ("content_block_start", "content_block"), "responses": ("response.output_item.added", "item")}
    kind, holder = begun[caller]
    return [names[event[holder]["type"]] for event in events_of(body) if event["type"] == kind]


def test_there_are_recordings_of_each_kind_of_upstream_in_text() -> None:
    assert {recorded["dialect"] for recorded in QUIRKS.values()} >= {"openai", "azure", "anthropic", "gemini"}


@pytest.mark.parametrize("failure", REQUESTS)
def test_what_others_lose_of_requests_reaches_the_vendor(failure: str) -> None:
    recorded = REQUESTS[failure]
    assert recorded["source"].startswith("https://") and recorded["what"], "each file names its source"
    for dialect, heard in recorded["heard"].items():
        parse, asked = (parse_chat, recorded["chat"]) if "chat" in recorded else (parse_messages, recorded["asked"])
        body = orjson.dumps(sent(dialect, parse(orjson.dumps(asked)))).decode()
        assert {word: body.count(word) for word in heard} == heard, dialect
