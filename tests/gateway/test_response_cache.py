"""The response cache: the same request again gets the same answer, at its own price, and no upstream is asked."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
import pytest_asyncio
from django.conf import settings

from apps.billing.pricing.book import at_share
from apps.billing.rating import cost_nanos
from apps.billing.receipts import CACHE_DISCOUNT, Rule, cache_discount, receipt_of
from apps.catalog.contracts import CacheTerms
from apps.core.limits import Limits
from apps.core.money import format_usd
from apps.gateway.kept import room
from apps.gateway.response_cache import replaying
from apps.gateway.response_cache.store import KEEP
from apps.gateway.response_cache.turn import STATUS
from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.usage.contracts import RESPONSE_CACHE, Outcome, RequestClosed
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.policies.rules import personal

pytestmark = pytest.mark.asyncio
CHAT = "/api/v1/chat/completions"


class Desk:
    """The bench, asked with the headers of the cache."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def headers(self, cache: str | None = "on", **others: str) -> dict[str, str]:
        plain = {"authorization": f"Bearer {self.bench.key}", "content-type": "application/json"}
        more = {name.replace("_", "-"): value for name, value in others.items()}
        return plain | more | ({} if cache is None else {"x-crun-cache": cache})

    async def ask(
        self,
        text: str = "one two three",
        *,
        cache: str | None = "on",
        ttl: str = "",
        model: str = "base",
        **fields: Any,
    ) -> Call:
        """A whole answer; what is to be kept of it is in the store when this returns."""
        headers = self.headers(cache, **({"x_crun_cache_ttl": ttl} if ttl else {}))
        call = await self.bench.call(CHAT, self.bench.chat_body(model, text, **fields), headers=headers)
        await self.until_kept()
        return call

    async def until_kept(self) -> None:
        await until(lambda: self.bench.runtime.cached_answers.keeping == 0)

    def terms(self, **terms: Any) -> None:
        """Give the model other terms."""
        model = msgspec.structs.replace(self.bench.models["base"], cache=CacheTerms(**terms))
        self.bench.models["base"] = model
        catalog = snapshot(*self.bench.models.values())
        named = frozenset(name for name, offer in self.bench.models.items() if offer.cache.default)
        self.bench.runtime.catalog.snapshot = msgspec.structs.replace(catalog, cached_by_default=named)

    def closed(self) -> list[RequestClosed]:
        return [entry for entry in self.bench.journal() if isinstance(entry, RequestClosed)]

    @property
    def upstream_calls(self) -> int:
        return len(self.bench.truth())


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture
async def desk(bench: Bench) -> Desk:
    async with asyncio.timeout(30):
        while await bench.runtime.cached_answers.find("org_nobody", "name") or bench.runtime.memory.is_away:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.05)
    return Desk(bench)


def status(call: Call) -> str:
    assert call.status == 200, call.body
    return call.headers.get(STATUS, "")


def said(call: Call) -> str:
    return str(call.json["choices"][0]["message"]["content"])


def told(call: Call) -> str:
    """The text of a stream that came to its end."""
    *chunks, done = call.events
    assert done == "[DONE]"
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_without_a_wish_nothing_is_kept_or_looked_for(desk: Desk, empty_store: Any) -> None:
    for _ in range(2):
        assert STATUS not in (await desk.ask(cache=None)).headers
    assert desk.upstream_calls == 2
    assert empty_store.keys("*:cache:*") == []


async def test_the_same_again_is_a_hit_with_a_record_of_its_own_that_costs_nothing(desk: Desk) -> None:
    first, again = await desk.ask(), await desk.ask()
    assert (status(first), status(again)) == ("MISS", "HIT")
    assert again.json["choices"] == first.json["choices"]
    assert again.json["created"] >= first.json["created"] > 0
    assert int(again.headers["age"]) >= 0 and again.headers["x-crun-cache-source-id"] == first.request_id
    assert again.request_id != first.request_id
    assert again.json["id"] == f"chatcmpl-{again.request_id.partition('_')[2]}"
    paid, hit = desk.bench.record(first), desk.bench.record(again)
    assert (hit.outcome, hit.tokens, hit.opened.provider) == (Outcome.COMPLETED, paid.tokens, RESPONSE_CACHE)
    assert (hit.cost_nanos, hit.saved_nanos) == (0, paid.cost_nanos) and paid.cost_nanos > 0
    assert (paid.opened.cache_hit, paid.saved_nanos) == (None, 0)
    assert again.headers["x-crun-cost"] == "0.000000000"
    usage = again.json["usage"]
    assert {**usage, "cost": 0, "cost_details": 0} == {**first.json["usage"], "cost": 0, "cost_details": 0}
    assert usage["cost_details"] == {"estimated": False, "cached": True, "saved": paid.cost_nanos / 10**9}
    assert desk.upstream_calls == 1


@pytest.mark.parametrize("first_streams", [True, False])
async def test_an_answer_is_given_whole_and_as_a_stream_however_it_came(desk: Desk, first_streams: bool) -> None:
    first = await desk.ask(stream=first_streams)
    whole, stream = await desk.ask(), await desk.ask(stream=True, stream_options={"include_usage": True})
    assert [status(call) for call in (first, whole, stream)] == ["MISS", "HIT", "HIT"]
    text = told(first) if first_streams else said(first)
    assert said(whole) == told(stream) == text != ""
    assert whole.json["choices"][0]["finish_reason"] == "stop"
    assert "".join(c["finish_reason"] or "" for e in stream.events[:-1] for c in e["choices"]) == "stop"
    usage = stream.events[-2]["usage"]
    assert usage["cost"] == 0 and usage["total_tokens"] == whole.json["usage"]["total_tokens"]
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert {chunk["id"] for chunk in stream.events[:-1]} == {f"chatcmpl-{stream.request_id.partition('_')[2]}"}
    assert {chunk["model"] for chunk in stream.events[:-1]} == {"base"}
    assert desk.upstream_calls == 1


@pytest.mark.parametrize("first_streams", [True, False])
async def test_tool_calls_and_several_choices_come_back_both_ways(desk: Desk, first_streams: bool) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    asked = {"model": "sandbox-tools", "tools": [tool], "n": 2}
    first = await desk.ask(**asked, stream=first_streams)
    whole, stream = await desk.ask(**asked), await desk.ask(**asked, stream=True)
    assert [status(call) for call in (first, whole, stream)] == ["MISS", "HIT", "HIT"]
    assert len(whole.json["choices"]) == 2
    for choice in whole.json["choices"]:
        (call,) = choice["message"]["tool_calls"]
        orjson.loads(call["function"]["arguments"])
        assert choice["finish_reason"] == "tool_calls"
        parts = [c for e in stream.events[:-1] for c in e["choices"] if c["index"] == choice["index"]]
        assert parts[0]["delta"]["tool_calls"] == [{"index": 0, **call}]
    if not first_streams:
        assert whole.json["choices"] == first.json["choices"]


async def test_completions_and_embeddings_are_cached_too(desk: Desk) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/api/v1/completions", {"model": "base", "prompt": "one two", "max_tokens": 9}),
        ("/api/v1/embeddings", {"model": "sandbox-embedding", "input": ["one", "two"]}),
    ]
    vectors = offered(
        id="sandbox-embedding", output_modalities=("embeddings",), targets=(desk.bench.target("sandbox-embedding"),)
    )
    desk.bench.models["sandbox-embedding"] = vectors
    desk.bench.runtime.catalog.snapshot = snapshot(*desk.bench.models.values())
    for path, body in asked:
        first = await desk.bench.call(path, body, headers=desk.headers())
        await desk.until_kept()
        again = await desk.bench.call(path, body, headers=desk.headers())
        assert (status(first), status(again)) == ("MISS", "HIT")
        for name in ("choices", "data"):
            assert again.json.get(name) == first.json.get(name)
        assert again.json["usage"]["cost"] == 0 and again.json["usage"]["cost_details"]["cached"] is True
    streamed = await desk.bench.call(asked[0][0], asked[0][1] | {"stream": True}, headers=desk.headers())
    assert status(streamed) == "HIT" and streamed.events[0]["object"] == "text_completion"


@pytest.mark.parametrize("first_streams", [True, False])
async def test_messages_in_anthropics_dialect_are_cached_both_ways(desk: Desk, first_streams: bool) -> None:
    body = {"model": "base", "max_tokens": 50, "messages": [{"role": "user", "content": "one two three"}]}
    first, stream, whole = [await _ask_messages(desk, body, stream=streams) for streams in (first_streams, True, False)]
    assert [status(call) for call in (first, stream, whole)] == ["MISS", "HIT", "HIT"]
    assert whole.json["content"][0]["text"].split() == ["one", "two", "three"]
    assert whole.json["usage"]["cost"] == 0 and whole.json["usage"]["cost_details"]["cached"] is True
    assert b"message_stop" in stream.body and b'"error"' not in stream.body
    assert desk.upstream_calls == 1


@pytest.mark.parametrize("first_streams", [True, False])
async def test_responses_are_cached_both_ways(desk: Desk, first_streams: bool) -> None:
    tools = [{"type": "custom", "name": "shell"}]
    bodies = [
        {"model": "base", "input": "one two three", "tools": tools, "stream": streams}
        for streams in (first_streams, True, False)
    ]
    calls = []
    for body in bodies:
        calls.append(await desk.bench.call("/api/v1/responses", body, headers=desk.headers()))
        await desk.until_kept()
    first, stream, whole = calls
    assert [status(call) for call in calls] == ["MISS", "HIT", "HIT"]
    assert whole.json["output"][0]["content"][0]["text"] == "one two three"
    assert whole.json["usage"]["cost_details"]["cached"] is True
    assert b"response.completed" in stream.body
    assert desk.upstream_calls == 1 and first.request_id != whole.request_id


async def _ask_messages(desk: Desk, body: dict[str, Any], *, stream: bool) -> Call:
    call = await desk.bench.call("/api/v1/messages", {**body, "stream": stream}, headers=desk.headers())
    await desk.until_kept()
    return call


async def test_refresh_asks_again_and_keeps_the_new_answer(desk: Desk, empty_store: Any) -> None:
    first = await desk.ask()
    refreshed = await desk.ask(cache="refresh")
    hit = await desk.ask()
    assert [status(call) for call in (first, refreshed, hit)] == ["MISS", "REFRESH", "HIT"]
    assert hit.headers["x-crun-cache-source-id"] == refreshed.request_id
    assert desk.upstream_calls == 2
    assert len(empty_store.keys("*:cache:*")) == 1
    (member,) = empty_store.zrange("crun:kept:ends", 0, -1)
    taken = int(member.rpartition(b"|")[2])
    assert int(empty_store.get("crun:kept:bytes")) == empty_store.zscore("crun:kept:owners", "org_1") == taken


async def test_an_answer_is_forgotten_after_its_time_and_not_given_to_who_wants_a_newer_one(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ask(ttl="60")
    (name,) = empty_store.keys("*:cache:*")
    assert 0 < empty_store.pttl(name) <= 60_000
    monkeypatch.setattr(replaying.time, "time", lambda clock=replaying.time.time: clock() + 30)
    assert status(await desk.ask(ttl="20")) == "MISS"
    monkeypatch.undo()
    empty_store.pexpire(name, 1)
    await until(lambda: not empty_store.exists(name))
    assert status(await desk.ask()) == "MISS"
    assert 60_000 < empty_store.pttl(name) <= 1_000 * settings.CACHE_TTL_S


@pytest.mark.parametrize(
    "headers", [{"cache": "perhaps"}, {"cache": ""}, {"ttl": "0"}, {"ttl": "86401"}, {"ttl": "1.5"}]
)
async def test_headers_without_a_meaning_are_refused(desk: Desk, headers: dict[str, str]) -> None:
    refused = await desk.ask(**headers)
    assert refused.status == 400
    assert refused.json["error"]["param"] == ("x-crun-cache" if "cache" in headers else "x-crun-cache-ttl")
    assert desk.upstream_calls == 0


async def test_a_model_may_cache_by_default_and_a_header_wins(desk: Desk, empty_store: Any) -> None:
    desk.terms(default=True, ttl_s=77)
    assert [status(await desk.ask(cache=wish)) for wish in (None, None, "off", "on")] == [
        "MISS",
        "HIT",
        "BYPASS",
        "HIT",
    ]
    (name,) = empty_store.keys("*:cache:*")
    assert 70_000 < empty_store.pttl(name) <= 77_000


async def test_an_installation_without_the_cache_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CACHE", False)
    assert [status(await desk.ask()) for _ in range(2)] == ["BYPASS", "BYPASS"]
    assert desk.upstream_calls == 2


async def test_an_organization_that_demands_zero_retention_has_nothing_kept(desk: Desk, empty_store: Any) -> None:
    keeps_nothing = msgspec.structs.replace(desk.bench.models["base"].targets[0], zero_retention=True)
    desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=(keeps_nothing,))
    desk.terms(default=True)
    desk.bench.limit(policy=Policy(data=DataRules(requires_zero_retention=True)))
    assert [status(await desk.ask(cache=wish)) for wish in ("on", None, "refresh")] == ["BYPASS"] * 3
    assert empty_store.keys("*:cache:*") == []
    desk.bench.limit(policy=Policy(data=DataRules(regions=())))
    assert status(await desk.ask(cache=None, provider={"zdr": True})) == "BYPASS"
    assert empty_store.keys("*:cache:*") == []
    assert [status(await desk.ask()) for _ in range(2)] == ["MISS", "HIT"]


async def test_a_rule_that_is_added_later_finds_no_answer_from_before(desk: Desk) -> None:
    mail, rules = "ann@example.com", Policy(guardrails=(personal("email", direction="output"),))
    calls = []
    for policy in (None, None, rules, rules, None):
        desk.bench.limit(policy=policy)
        calls.append(await desk.ask(f"write to {mail}"))
    assert [status(call) for call in calls] == ["MISS", "HIT", "MISS", "HIT", "HIT"]
    assert [mail in call.body.decode() for call in calls] == [True, True, False, False, True]


async def test_a_sandbox_key_has_hits_that_cost_nobody_anything(desk: Desk) -> None:
    desk.terms(share_ppm=500_000)
    sandbox = tuple(msgspec.structs.replace(t, is_sandbox=True) for t in desk.bench.models["base"].targets)
    desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=sandbox)
    desk.terms(share_ppm=500_000)
    desk.bench.limit(sandbox=True)
    calls = [await desk.ask() for _ in range(2)]
    assert [status(call) for call in calls] == ["MISS", "HIT"]
    hit = desk.bench.record(calls[1])
    assert hit.opened.sandbox and hit.cost_nanos > 0 == hit.charged_nanos
    assert "x-crun-budget-remaining" not in calls[1].headers


async def test_organizations_projects_and_test_traffic_never_share_an_answer(desk: Desk) -> None:
    assert status(await desk.ask()) == "MISS"
    mine = desk.bench.grant
    others = [
        {"organization_id": "org_2"},
        {"organization_id": "org_2", "project_id": "proj_2"},
        {"project_id": "proj_2"},
        {"sandbox": True},
    ]
    for changes in others:
        desk.bench.limit(**changes)
        if changes.get("sandbox"):
            sandbox = tuple(msgspec.structs.replace(t, is_sandbox=True) for t in desk.bench.models["base"].targets)
            desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=sandbox)
            desk.bench.runtime.catalog.snapshot = snapshot(*desk.bench.models.values())
        assert status(await desk.ask()) == "MISS"
        desk.bench.grant = mine
    assert desk.upstream_calls == 1 + len(others)
    desk.bench.limit(key_id="key_2")
    assert status(await desk.ask()) == "HIT"  # another key of the same project


async def test_a_sealed_answer_that_is_put_into_another_organizations_place_is_not_opened(
    desk: Desk, empty_store: Any
) -> None:
    await desk.ask()
    (name,) = empty_store.keys("*:cache:*")
    other = name.replace(b"org_1", b"org_2")
    empty_store.set(other, empty_store.get(name))
    found = await desk.bench.runtime.cached_answers.find("org_2", name.decode().rpartition(":")[2])
    assert found is None


async def test_nothing_that_can_be_read_is_in_the_store(desk: Desk, empty_store: Any) -> None:
    """Canaries in prompt and answer (the sandbox says what it was told), whole and streamed."""
    for number, stream in enumerate((True, False)):
        await desk.ask(f"canary-{number}-wolfram", stream=stream)
    assert len(empty_store.keys("*:cache:*")) == 2
    for key in empty_store.keys("*"):
        content = empty_store.dump(key) + key
        assert b"wolfram" not in content and b"canary" not in content
    for key in empty_store.keys("*:cache:*"):
        assert b"base" not in empty_store.get(key)


@pytest.mark.parametrize(
    ("share", "price"),
    [(0, PRICE), (1, PRICE), (100_000, PRICE), (123_457, PRICE), (1_000_000, PRICE)],
)
async def test_a_hit_costs_its_share_to_the_nano_and_its_receipt_shows_what_was_saved(
    desk: Desk, share: int, price: Any
) -> None:
    desk.terms(share_ppm=share)
    first, again = await desk.ask(), await desk.ask(stream=True)
    paid, hit = desk.bench.record(first), desk.bench.record(again)
    own = at_share(price, share)
    assert hit.cost_nanos == cost_nanos(paid.tokens, own) == hit.opened.hold_nanos
    assert hit.saved_nanos == paid.cost_nanos - hit.cost_nanos >= 0
    assert (hit.cost_nanos, hit.overage_nanos) == ((0, 0) if share == 0 else (hit.cost_nanos, 0))
    receipt = receipt_of(hit, price, discounts=[cache_discount(hit, price, share)])
    assert receipt.arithmetic is not None and receipt.arithmetic.correction_nanos == 0
    assert receipt.arithmetic.discounts[0].rule_id == CACHE_DISCOUNT
    assert (receipt.rule, list(receipt.attempts), receipt.saved_nanos) == (Rule.CACHED, [], hit.saved_nanos)
    usage = again.events[-2]["usage"]
    assert format_usd(round(usage["cost"] * 10**9)) == format_usd(hit.cost_nanos)


async def test_the_installations_share_counts_where_the_model_has_none(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CACHE_PRICE_PPM", 500_000)
    await desk.ask()
    hit = desk.bench.record(await desk.ask())
    assert hit.opened.cache_hit is not None and hit.opened.cache_hit.share_ppm == 500_000
    desk.terms(share_ppm=0)
    assert desk.bench.record(await desk.ask()).cost_nanos == 0


async def test_a_hit_is_admitted_for_its_price_and_takes_a_request_but_no_tokens(desk: Desk) -> None:
    desk.terms(share_ppm=100_000)
    await desk.ask()
    desk.bench.limit(key_limits=Limits(requests_per_minute=2, tokens_per_minute=200))
    hits = [await desk.ask() for _ in range(3)]
    assert [call.status for call in hits] == [200, 200, 429]
    assert hits[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert hits[1].headers["x-ratelimit-remaining-tokens"] == "200"
    assert hits[2].json["error"]["code"] == "rate_limit_exceeded"


async def test_who_has_no_budget_left_gets_no_hit_that_costs(desk: Desk) -> None:
    desk.terms(share_ppm=1_000_000)
    paid = desk.bench.record(await desk.ask()).cost_nanos
    desk.bench.limit(key_limits=Limits(budget_nanos=2 * paid + 1, budget_period="month"))
    assert status(await desk.ask()) == "HIT"
    refused = await desk.ask()
    assert (refused.status, refused.json["error"]["code"]) == (429, "key_spend_limit_exceeded")
    desk.terms(share_ppm=0)
    assert status(await desk.ask()) == "HIT"


@pytest.mark.parametrize(
    "model",
    ["fault-500", "fault-cut-1", "fault-no-usage", "fault-float-usage", "fault-error-event-1", "fault-short-body"],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_no_whole_answer_with_a_certain_usage_is_not_kept(
    desk: Desk, empty_store: Any, model: str, stream: bool
) -> None:
    call = await desk.ask(model=f"sandbox-{model}", stream=stream)
    if model == "fault-short-body" and stream:
        assert told(call) == "one two three"  # that fault is one of whole answers
    else:
        assert empty_store.keys("*:cache:*") == []
        assert desk.upstream_calls == 1


async def test_an_output_that_we_cut_is_not_kept_and_one_that_its_caller_cut_is(desk: Desk, empty_store: Any) -> None:
    desk.bench.limit(key_limits=Limits(tokens_per_minute=150))
    cut = await desk.ask(model="sandbox-echo", sandbox={"chunks": 99})
    assert cut.json["choices"][0]["finish_reason"] == "length"
    assert empty_store.keys("*:cache:*") == []
    desk.bench.limit(key_limits=Limits())
    short = await desk.ask("word " * 90, model="sandbox-echo", max_tokens=3)
    assert short.json["choices"][0]["finish_reason"] == "length"
    assert len(empty_store.keys("*:cache:*")) == 1


async def test_a_client_that_leaves_keeps_nothing(desk: Desk, empty_store: Any) -> None:
    body = desk.bench.chat_body("sandbox-echo", "a b c d e f", stream=True, sandbox={"chunk_delay_ms": 100})
    call = desk.bench.start(CHAT, body, headers=desk.headers())
    await call.until(lambda call: len(call.sent) > 2)
    call.leave()
    assert call.task is not None
    await call.task
    assert desk.bench.record(call).outcome is Outcome.CANCELLED
    assert empty_store.keys("*:cache:*") == []


async def test_a_model_of_a_list_that_answered_is_named_by_its_hits(desk: Desk) -> None:
    desk.bench.offer("sandbox-echo")
    asked = {"models": ["base", "sandbox-echo"], "model": "missing"}
    first, again = await desk.ask(**asked), await desk.ask(**asked)
    assert (status(first), status(again)) == ("MISS", "HIT")
    assert again.json["model"] == first.json["model"] == desk.bench.record(again).opened.model


async def test_a_model_with_other_routes_answers_anew(desk: Desk) -> None:
    await desk.ask()
    other = msgspec.structs.replace(desk.bench.models["base"].targets[0], upstream_model="sandbox-echo", weight=9)
    desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=(other,))
    desk.bench.runtime.catalog.snapshot = snapshot(*desk.bench.models.values())
    assert status(await desk.ask()) == "HIT"  # who gets how much of the traffic does not matter
    more = msgspec.structs.replace(other, provider="another")
    desk.bench.models["base"] = msgspec.structs.replace(desk.bench.models["base"], targets=(other, more))
    desk.bench.runtime.catalog.snapshot = snapshot(*desk.bench.models.values())
    assert status(await desk.ask()) == "MISS"


async def test_an_idempotency_key_goes_first_and_both_are_charged_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    headers = desk.headers(idempotency_key="order 17")
    body = desk.bench.chat_body("base")
    first = await desk.bench.call(CHAT, body, headers=headers)
    await until(lambda: desk.bench.runtime.claims.unfinished == 0)
    again = await desk.bench.call(CHAT, body, headers=headers)
    assert again.body == first.body and again.headers["x-crun-idempotent-replay"] == "true"
    assert len(desk.closed()) == 1


async def test_a_store_that_is_away_is_a_miss_and_never_an_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.ask()
    monkeypatch.setattr(desk.bench.runtime.memory, "_url", "unix:///nowhere/valkey.sock")
    await desk.bench.runtime.memory._link.close()  # type: ignore[union-attr]  # it was connected
    assert [status(await desk.ask(stream=stream)) for stream in (True, False)] == ["MISS", "MISS"]
    monkeypatch.undo()
    await until(lambda: not desk.bench.runtime.memory.is_away)
    async with asyncio.timeout(30):
        while status(await desk.ask()) != "HIT":  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.05)


async def test_an_answer_that_cannot_be_opened_is_a_miss_and_replaced(desk: Desk, empty_store: Any) -> None:
    await desk.ask()
    (name,) = empty_store.keys("*:cache:*")
    sealed = empty_store.get(name)
    empty_store.set(name, sealed[:-1] + bytes([sealed[-1] ^ 1]), keepttl=True)
    assert [status(await desk.ask()) for _ in range(2)] == ["MISS", "HIT"]


async def test_twins_that_miss_at_once_all_ask_and_one_answer_stays(desk: Desk, empty_store: Any) -> None:
    calls = await asyncio.gather(*(desk.ask(model="sandbox-echo", sandbox={"delay_ms": 100}) for _ in range(5)))
    assert {status(call) for call in calls} == {"MISS"}
    assert len(empty_store.keys("*:cache:*")) == 1 and empty_store.zcard("crun:kept:ends") == 1


async def test_an_organization_has_no_more_than_its_room_and_the_largest_gives_way_when_all_is_full(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.ask("0")
    one = int(empty_store.get("crun:kept:bytes"))
    monkeypatch.setattr(settings, "ANSWERS_ORGANIZATION_BYTES", 3 * one + one // 2)
    for number in range(5):
        await desk.ask(str(number))
    assert len(empty_store.keys("crun:{org_1}:cache:*")) == 3
    monkeypatch.setattr(settings, "ANSWERS_BYTES", 4 * one + one // 2)
    desk.bench.limit(organization_id="org_2")
    for number in range(2):
        await desk.ask(str(number))
    kept = {owner: len(empty_store.keys(f"crun:{{{owner}}}:cache:*")) for owner in ("org_1", "org_2")}
    assert kept == {"org_1": 2, "org_2": 2}
    assert int(empty_store.get("crun:kept:bytes")) <= 4 * one + one // 2
    assert status(await desk.ask("1")) == "HIT"
    desk.bench.limit(organization_id="org_1")
    assert status(await desk.ask("4")) == "HIT"  # the newest of the larger one stayed


async def test_cached_answers_give_way_before_idempotent_ones(
    desk: Desk, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateway.runtime.pause_ms", lambda *_: 0)
    headers = desk.headers(None, idempotency_key="order 17")
    body = desk.bench.chat_body("base")
    first = await desk.bench.call(CHAT, body, headers=headers)
    await until(lambda: desk.bench.runtime.claims.unfinished == 0)
    monkeypatch.setattr(settings, "ANSWERS_ORGANIZATION_BYTES", 2 * int(empty_store.get("crun:kept:bytes")))
    for number in range(4):
        await desk.ask(str(number), ttl="86400")
    again = await desk.bench.call(CHAT, body, headers=headers)
    assert again.body == first.body and again.headers["x-crun-idempotent-replay"] == "true"
    assert len(empty_store.keys("*:cache:*")) == 1


async def test_what_was_forgotten_takes_no_room(desk: Desk, empty_store: Any) -> None:
    for number in range(3):
        await desk.ask(str(number))
    taken = int(empty_store.get("crun:kept:bytes"))
    for member, _ in empty_store.zscan_iter("crun:kept:ends"):
        empty_store.zadd("crun:kept:ends", {member: 1})
        empty_store.delete(member.rpartition(b"|")[0])
    await desk.ask("3")
    assert int(empty_store.get("crun:kept:bytes")) < taken / 2
    assert empty_store.zcard("crun:kept:ends") == empty_store.zcard("crun:{org_1}:kept") == 1
    assert empty_store.zscore("crun:kept:owners", "org_1") == int(empty_store.get("crun:kept:bytes"))


async def test_an_answer_in_the_place_of_one_that_is_gone_is_counted_once(desk: Desk, empty_store: Any) -> None:
    """A store under pressure drops keys, and what is noted of those stands on: an answer as large comes next."""
    store, script, name = desk.bench.runtime.memory, KEEP, "crun:{org_1}:cache:name"
    for _ in range(2):
        empty_store.delete(name)
        assert await store.call(script, name, b"x" * 1_000, 60_000, *room.bounds()) == 1
    taken = int(empty_store.get("crun:kept:bytes"))
    assert taken == empty_store.zscore("crun:kept:owners", "org_1") < 2_000
