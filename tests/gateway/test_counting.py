"""The cheap bound on the input comes first; tokens are counted only where it would refuse or cut."""

import asyncio
import hashlib
import inspect
import time
from threading import Event
from typing import Any

import orjson
import pytest
from tiktoken_ext import openai_public

from apps.core.limits import Limits
from apps.gateway.dialects.chat import TOOLS_TOKENS, body_for_upstream, parse_chat
from apps.gateway.metering import counting
from apps.gateway.metering.counting import DIGESTS, TOKENS, TokenCounter, measure_of, read_vocabulary
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench

CHAT = "/api/v1/chat/completions"
PROSE = "The gateway counts what a prompt has, and not what it might have had. " * 60
"""4 200 bytes, 900 tokens."""


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The length of every text that is counted."""
    seen: list[int] = []
    real = TokenCounter.count_now

    def counting_now(self: TokenCounter, text: str, measure: Any, **bound: Any) -> int:
        seen.append(len(text))
        return real(self, text, measure, **bound)

    monkeypatch.setattr(TokenCounter, "count_now", counting_now)
    return seen


@pytest.mark.parametrize("name", DIGESTS)
def test_the_vocabularies_are_the_published_ones(name: str) -> None:
    assert hashlib.sha256(read_vocabulary(name)).hexdigest() == DIGESTS[name]
    assert DIGESTS[name] in inspect.getsource(getattr(openai_public, name))


@pytest.mark.parametrize("name", DIGESTS)
def test_text_is_split_as_the_library_splits_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *_, **__: {})
    theirs = getattr(openai_public, name)()["pat_str"]
    assert counting._load(name)._pat_str == theirs


def test_a_damaged_vocabulary_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIGESTS, "cl100k_base", "0" * 64)
    with pytest.raises(ValueError, match="damaged"):
        read_vocabulary("cl100k_base")


@pytest.mark.parametrize(
    ("text", "name", "tokens"),
    [("tiktoken is great!", "cl100k_base", 6), ("tiktoken is great!", "o200k_base", 6), ("お誕生日", "cl100k_base", 5)],
)
def test_counts_are_those_of_openais_cookbook(text: str, name: str, tokens: int) -> None:
    assert TOKENS.count_now(text, measure_of(offered(tokenizer=name))) == tokens


def test_the_encoding_follows_from_tokenizer_or_vendor() -> None:
    assert measure_of(offered(tokenizer="cl100k_base")) == ("cl100k_base", counting.OWN_MARGIN)
    assert measure_of(offered(vendor="OpenAI")) == ("o200k_base", counting.OWN_MARGIN)
    assert measure_of(offered(vendor="Anthropic")) == ("o200k_base", counting.OTHER_MARGIN)


def test_what_is_counted_leaves_out_media_and_nothing_else() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000}}
    body = {
        "model": "m", "tools": [{"type": "function", "function": {"name": "look_it_up"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]}],
    }  # fmt: skip
    chat = parse_chat(orjson.dumps(body))
    text = chat.countable_text()
    assert "look_it_up" in text and "what is this?" in text and "AAAA" not in text
    assert chat.text_bytes < 400
    chat.text_tokens = 50
    assert chat.input_bound(100_000) == 50 + 8_192 + 8 + TOOLS_TOKENS


@pytest.mark.parametrize("content", ["x", [{"type": "text", "text": "x"}]])
def test_numbers_are_bounded_as_the_upstream_gets_them(content: Any) -> None:
    """9e15 is four bytes here and 18 there, and every digit is billed."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"enum": ["NUMBERS"]}}}
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "tools": [tool]}
    chat = parse_chat(orjson.dumps(body).replace(b'"NUMBERS"', b",".join([b"9e15"] * 2_000)))
    sent = body_for_upstream(chat, offered(), "m").decode()
    assert TOKENS.count_now(sent, measure_of(offered())) < chat.input_bound(1_000_000) < len(sent) + 2 * TOOLS_TOKENS


def test_the_tools_of_old_clients_bring_what_vendors_say_about_tools_too() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "functions": [{"name": "f"}]}
    assert parse_chat(orjson.dumps(body)).input_bound(1_000_000) > TOOLS_TOKENS


@pytest.mark.asyncio
async def test_too_many_long_texts_are_not_counted() -> None:
    counter = TokenCounter()
    text = "word " * 10_000
    answers = await asyncio.gather(*(counter.count(text, measure_of(offered())) for _ in range(20)))
    counted = [answer for answer in answers if answer is not None]
    assert len(counted) == counting.MAX_WAITING and 10_000 <= min(counted) == max(counted) < 10_020


def test_counting_ends_where_the_answer_is_known() -> None:
    measure = measure_of(offered())
    text = "word " * 100_000
    assert 1_000 < TOKENS.count_now(text, measure, enough=1_000) <= 1_000 + counting.SLICE
    assert TOKENS.count_now("word " * 100, measure, enough=1_000) < 110


@pytest.mark.asyncio
async def test_who_waits_behind_somebody_elses_text_soon_has_the_cheap_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter, measure, text = TokenCounter(), measure_of(offered()), "word " * 10_000
    await counter.load(measure)
    begun, go = Event(), Event()
    real = TokenCounter.count_now

    def slowly(self: TokenCounter, text: str, measure: Any, **bound: Any) -> int:
        begun.set()
        go.wait(10)
        return real(self, text, measure, **bound)

    monkeypatch.setattr(TokenCounter, "count_now", slowly)
    first = asyncio.create_task(counter.count(text, measure))
    await asyncio.to_thread(begun.wait, 10)
    started = time.monotonic()
    assert await asyncio.wait_for(counter.count(text, measure), 5) is None
    assert time.monotonic() - started < counting.PATIENCE_S + 1
    go.set()
    counted = await first
    assert counted is not None and 10_000 <= counted < 10_020  # whose turn it is waits for its own count
    assert await counter.count(text, measure) == counted


@pytest.mark.asyncio
async def test_text_far_beyond_the_context_is_counted_no_further_than_needed(bench: Bench, counts: list[int]) -> None:
    bench.models["short"] = offered(
        id="short", tokenizer="o200k_base", context_length=5_000, targets=bench.models["base"].targets
    )
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    encoded: list[int] = []
    encoding = TOKENS._encoding("o200k_base")

    class Watched:
        def encode_ordinary(self, text: str) -> list[int]:
            encoded.append(len(text))
            return encoding.encode_ordinary(text)

    TOKENS._encodings["o200k_base"] = Watched()  # type: ignore[assignment]  # it stands in for an encoding
    try:
        call = await bench.call(CHAT, {"model": "short", "messages": [{"role": "user", "content": PROSE * 400}]})
    finally:
        TOKENS._encodings["o200k_base"] = encoding
    assert (call.status, call.json["error"]["code"]) == (400, "context_length_exceeded")
    assert 5_000 < sum(encoded) < 100_000 < len(PROSE * 400)


@pytest.mark.asyncio
async def test_with_enough_money_nothing_is_counted(bench: Bench, counts: list[int]) -> None:
    assert (await bench.chat("base", PROSE, max_tokens=50)).status == 200
    assert (await bench.chat("base", PROSE)).status == 200
    assert (await bench.chat("base", PROSE, stream=True)).status == 200
    assert counts == []


@pytest.mark.asyncio
async def test_a_prompt_is_not_refused_for_tokens_that_it_does_not_have(bench: Bench, counts: list[int]) -> None:
    """A token a byte would cost 650 000 nanos; what is there pays for twice the tokens that there are."""
    bench.limit(key_limits=Limits(budget_nanos=350_000))
    call = await bench.chat("base", PROSE, max_tokens=50)
    assert call.status == 200 and len(counts) == 1
    record = bench.record(call)
    assert record.cost_nanos <= (record.opened.hold_nanos or 0) <= 350_000 and record.overage_nanos == 0


@pytest.mark.asyncio
async def test_a_long_prompt_that_fits_its_context_is_counted_to_its_end(bench: Bench, counts: list[int]) -> None:
    bench.limit(key_limits=Limits(budget_nanos=3_500_000))
    call = await bench.chat("base", PROSE * 10, max_tokens=50)
    assert call.status == 200 and len(counts) == 1
    record = bench.record(call)
    assert record.overage_nanos == 0 and 9_000 * 150 < (record.opened.hold_nanos or 0) <= 3_500_000


@pytest.mark.asyncio
async def test_who_has_next_to_nothing_is_refused_without_counting(bench: Bench, counts: list[int]) -> None:
    bench.limit(key_limits=Limits(budget_nanos=60_000))
    assert (await bench.chat("base", PROSE, max_tokens=50)).status == 429
    bench.limit(key_limits=Limits(tokens_per_minute=300))
    assert (await bench.chat("base", PROSE, max_tokens=50)).status == 429
    assert counts == []


@pytest.mark.asyncio
async def test_a_rate_counts_the_tokens_that_there_are(bench: Bench, counts: list[int]) -> None:
    bench.limit(key_limits=Limits(tokens_per_minute=2_500))
    assert (await bench.chat("base", PROSE, max_tokens=50)).status == 200
    assert len(counts) == 1


@pytest.mark.asyncio
async def test_text_that_is_certainly_too_long_is_told_so_before_any_upstream(bench: Bench) -> None:
    bench.models["short"] = offered(
        id="short", tokenizer="o200k_base", context_length=500, targets=bench.models["base"].targets
    )
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    body = {"model": "short", "messages": [{"role": "user", "content": PROSE}]}
    call = await bench.call(CHAT, body)
    assert (call.status, call.json["error"]["code"]) == (400, "context_length_exceeded")
    assert call.json["error"]["param"] == "messages" and bench.truth() == {} and bench.journal() == []
    bench.models["short"] = offered(id="short", tokenizer="", context_length=500, targets=bench.models["base"].targets)
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    assert (await bench.call(CHAT, body)).status == 200  # with a tokenizer that is not ours only the upstream knows
