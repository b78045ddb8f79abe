"""Which routes a request may take and in which order: pure, with health that is made up and a clock that is turned."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from apps.catalog.contracts import OfferedModel, PriceVariant, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.errors import UPSTREAM_FAILED, UPSTREAM_OVERLOADED, GatewayError
from apps.gateway.routing.health import (
    FAILURES_TO_REST,
    FIRST_REST_S,
    LEAST_RETRIES,
    LONGEST_REST_S,
    LONGEST_RETRY_AFTER_S,
    RETRY_SHARE,
    RETRY_WINDOW_S,
    TRIAL_S,
    RetryBudget,
    Upstreams,
)
from apps.gateway.routing.order import check_price, chosen, has_usable_route
from apps.gateway.routing.order import in_order as in_order_of
from apps.gateway.routing.wishes import MAX_MODELS, Preferences, Wishes, wishes_of
from apps.usage.contracts import AttemptMade, Outcome, TokenCounts
from tests.clocks import Clock
from tests.factories import GRANT, PRICE, TARGET, closed, offered, opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upstreams(clock: Clock) -> Upstreams:
    return Upstreams(clock)


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], **fields}
    return ChatRequest(model="a", stream=False, choices=1, body=body)


def target(provider: str, **changes: Any) -> Target:
    return msgspec.structs.replace(TARGET, provider=provider, **changes)


def model(*providers: str) -> OfferedModel:
    return offered(targets=tuple(map(target, providers)))


def preferences(**fields: Any) -> Preferences:
    return wishes_of(chat(provider=fields)).preferences


def names(targets: Any) -> list[str]:
    return [each.provider for each in targets]


def in_order(offer: OfferedModel, upstreams: Upstreams) -> Any:
    return in_order_of(offer, chat(), "org_1", upstreams=upstreams)


def picked(offer: OfferedModel, upstreams: Upstreams, **fields: Any) -> list[str]:
    return names(chosen(offer, preferences(**fields), chat(), GRANT, upstreams=upstreams))


def test_without_wishes_there_is_the_model_alone() -> None:
    nothing: list[dict[str, Any]] = [{}, {"models": None, "provider": None}, {"models": []}, {"provider": {}}]
    for fields in nothing:
        assert wishes_of(chat(**fields)) == Wishes(("a",))


def test_the_model_comes_first_then_models_in_their_order_each_once() -> None:
    assert wishes_of(chat(models=["c", "a", "b", "c"])).models == ("a", "c", "b")


@pytest.mark.parametrize(
    ("models", "param"),
    [
        ("b", "models"), ({}, "models"), (["b"] * (MAX_MODELS + 1), "models"), (7, "models"),
        (["b", ""], "models[1]"), (["b", None], "models[1]"), (["x" * 129], "models[0]"), ([True], "models[0]"),
        (["a\nb"], "models[0]"),
    ],
)  # fmt: skip
def test_a_list_of_models_that_is_none_is_refused_by_name(models: Any, param: str) -> None:
    with pytest.raises(GatewayError) as refused:
        wishes_of(chat(models=models))
    assert (refused.value.kind.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("provider", "param"),
    [
        ("a", "provider"), ([], "provider"), ({"orders": ["a"]}, "provider.orders"),
        ({"order": "a"}, "provider.order"), ({"only": []}, "provider.only"), ({"only": [1]}, "provider.only[0]"),
        ({"ignore": ["a", ""]}, "provider.ignore[1]"), ({"order": ["a"] * 33}, "provider.order"),
        ({"allow_fallbacks": 1}, "provider.allow_fallbacks"), ({"allow_fallbacks": "no"}, "provider.allow_fallbacks"),
        ({"require_parameters": 0}, "provider.require_parameters"),
        ({"data_collection": "never"}, "provider.data_collection"),
        ({"data_collection": []}, "provider.data_collection"),
        ({"zdr": 0}, "provider.zdr"),
        ({"enforce_distillable_text": True}, "provider.enforce_distillable_text"),
        ({"quantizations": ["fp8", "fp7"]}, "provider.quantizations[1]"),
        ({"quantizations": "fp8"}, "provider.quantizations"),
        ({"quantizations": []}, "provider.quantizations"),
        ({"sort": "exacto"}, "provider.sort"), ({"sort": {"by": "price"}}, "provider.sort"),
        ({"max_price": 1}, "provider.max_price"), ({"max_price": {"tokens": 1}}, "provider.max_price.tokens"),
        ({"max_price": {"prompt": -1}}, "provider.max_price.prompt"),
        ({"max_price": {"prompt": True}}, "provider.max_price.prompt"),
        ({"max_price": {"prompt": "NaN"}}, "provider.max_price.prompt"),
        ({"max_price": {"prompt": "cheap"}}, "provider.max_price.prompt"),
        ({"max_price": {"image": "Infinity"}}, "provider.max_price.image"),
        ({"preferred_min_throughput": 0}, "provider.preferred_min_throughput"),
        ({"preferred_min_throughput": True}, "provider.preferred_min_throughput"),
        ({"preferred_max_latency": "1"}, "provider.preferred_max_latency"),
        ({"preferred_max_latency": {"p99": 1}}, "provider.preferred_max_latency.p99"),
    ],
)  # fmt: skip
def test_a_preference_that_cannot_be_kept_is_refused_by_name(provider: Any, param: str) -> None:
    with pytest.raises(GatewayError) as refused:
        wishes_of(chat(provider=provider))
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_preferences_that_forbid_nothing_are_taken() -> None:
    kept = preferences(
        order=None, data_collection="allow", zdr=False, enforce_distillable_text=False, sort=None,
        quantizations=["fp8", "unknown"], max_price={"prompt": None}, preferred_max_latency={"p50": 2},
        preferred_min_throughput=30,
    )  # fmt: skip
    assert kept == Preferences(max_latency=2.0, min_throughput=30.0, quantizations=("fp8", "unknown"))


def test_heavier_routes_tend_to_come_first_and_all_come(upstreams: Upstreams) -> None:
    offer = offered(targets=(target("light", weight=1), target("heavy", weight=9)))
    firsts = Counter(names(in_order(offer, upstreams))[0] for _ in range(2_000))
    assert sorted(names(in_order(offer, upstreams))) == ["heavy", "light"]
    assert 1_600 < firsts["heavy"] < 1_960


def test_order_only_and_ignore(upstreams: Upstreams) -> None:
    offer = model("a", "b", "c")
    assert picked(offer, upstreams, order=["c", "a"]) == ["c", "a", "b"]
    assert picked(offer, upstreams, order=["c", "x", "a"], allow_fallbacks=False) == ["c", "a"]
    assert picked(offer, upstreams, only=["b", "x"]) == ["b"]
    assert sorted(picked(offer, upstreams, ignore=["b", "x"])) == ["a", "c"]
    assert sorted(picked(offer, upstreams, ignore=[], order=[])) == ["a", "b", "c"]
    assert len(picked(offer, upstreams, allow_fallbacks=False)) == 1
    assert picked(offer, upstreams, only=["a", "b"], ignore=["a"]) == ["b"]


@pytest.mark.parametrize("fields", [{"only": ["x"]}, {"ignore": ["a"]}, {"order": ["x"], "allow_fallbacks": False}])
def test_when_no_provider_is_left_that_is_told(upstreams: Upstreams, fields: dict[str, Any]) -> None:
    with pytest.raises(GatewayError) as refused:
        picked(model("a"), upstreams, **fields)
    assert (refused.value.code, refused.value.param) == ("no_matching_provider", "provider")


def test_routes_that_have_no_words_for_a_field_are_left_out_where_all_fields_are_required(upstreams: Upstreams) -> None:
    offer = offered(targets=(target("a", dialect="anthropic"), target("o")))
    strict = preferences(require_parameters=True)
    assert len(chosen(offer, strict, chat(temperature=0.5), GRANT, upstreams=upstreams)) == 2
    assert names(chosen(offer, strict, chat(logit_bias={"5": 1}), GRANT, upstreams=upstreams)) == ["o"]
    assert len(chosen(offer, preferences(), chat(logit_bias={"5": 1}), GRANT, upstreams=upstreams)) == 2


def measured(upstreams: Upstreams, provider: str, *, latency_ms: int, tokens: int, seconds: float = 1.0) -> None:
    entry = opened(streamed=True, provider=provider)
    duration = latency_ms + int(seconds * 1000)
    end = closed(entry, tokens=TokenCounts(output=tokens), first_byte_ms=latency_ms, duration_ms=duration)
    upstreams.of(target(provider)).ended(end)


def test_routes_are_sorted_by_what_was_measured_and_unknown_ones_come_last(upstreams: Upstreams) -> None:
    offer = model("new", "slow", "fast")
    measured(upstreams, "slow", latency_ms=900, tokens=300)
    measured(upstreams, "fast", latency_ms=100, tokens=20)
    assert picked(offer, upstreams, sort="latency") == ["fast", "slow", "new"]
    assert picked(offer, upstreams, sort="throughput") == ["slow", "fast", "new"]
    assert sorted(picked(offer, upstreams, sort="price")) == ["fast", "new", "slow"]
    assert picked(offer, upstreams, preferred_max_latency=0.5)[-1] == "slow"
    assert picked(offer, upstreams, preferred_min_throughput=100)[-1] == "fast"
    assert picked(offer, upstreams, order=["slow"], preferred_max_latency=0.5)[0] == "slow"


def test_averages_follow_what_comes_and_forget_slowly(upstreams: Upstreams) -> None:
    health = upstreams.of(target("a"))
    measured(upstreams, "a", latency_ms=100, tokens=50)
    assert (health.latency_ms, health.tokens_per_s) == (100, 50)
    measured(upstreams, "a", latency_ms=200, tokens=150)
    assert (health.latency_ms, health.tokens_per_s) == pytest.approx((110, 60))
    again = AttemptMade("m", "b", 0, 1, Outcome.FAILED, 503)
    health.ended(closed(first_byte_ms=9_000, attempts=(again, again)))  # the time of other routes is in it
    assert health.latency_ms == pytest.approx(110)


@pytest.mark.parametrize(
    ("limit", "is_enough"),
    [
        ({"prompt": 0.15}, True), ({"prompt": "0.149999999"}, False), ({"completion": 0.6}, True),
        ({"completion": 0.59}, False), ({"prompt": 1, "completion": 0.1}, False), ({"request": 0}, True),
        ({"image": 0}, True), ({"audio": 0.15}, True), ({"audio": 0.1}, False),
    ],
)  # fmt: skip
def test_a_price_above_the_callers_is_refused(limit: dict[str, Any], is_enough: bool) -> None:
    wanted = preferences(max_price=limit)
    if is_enough:
        check_price(PRICE, wanted, service_tier="")
        return
    with pytest.raises(GatewayError) as refused:
        check_price(PRICE, wanted, service_tier="")
    assert (refused.value.code, refused.value.param) == ("no_matching_provider", "provider.max_price")


def test_a_price_is_compared_at_every_rate_that_the_request_can_come_to() -> None:
    def variant(**conditions: Any) -> PriceVariant:
        return PriceVariant(input=10**9, output=0, cache_read=0, cache_write=0, reasoning=0, **conditions)

    wanted = preferences(max_price={"prompt": 0.5})
    tier = msgspec.structs.replace(PRICE, variants=(variant(service_tier="priority"),))
    check_price(tier, wanted, service_tier="")
    long = msgspec.structs.replace(PRICE, variants=(variant(min_input_tokens=200_000),))
    for price, asked in ((tier, "priority"), (long, "")):
        with pytest.raises(GatewayError):
            check_price(price, wanted, service_tier=asked)


def fail(upstreams: Upstreams, provider: str, times: int = FAILURES_TO_REST) -> None:
    for _ in range(times):
        upstreams.of(target(provider)).failed()


def test_a_route_rests_after_five_failures_in_a_row_and_not_before(upstreams: Upstreams) -> None:
    offer = model("bad", "good")
    fail(upstreams, "bad", FAILURES_TO_REST - 1)
    upstreams.of(target("bad")).ended(closed())
    fail(upstreams, "bad", FAILURES_TO_REST - 1)
    assert not upstreams.of(target("bad")).is_resting
    fail(upstreams, "bad", 1)
    for _ in range(50):
        assert names(in_order(offer, upstreams)) == ["good", "bad"]
        assert picked(offer, upstreams, order=["bad"]) == ["good", "bad"]


def test_answers_that_break_off_count_as_failures_and_clients_that_leave_do_not(upstreams: Upstreams) -> None:
    health = upstreams.of(target("a"))
    for outcome, code in [(Outcome.CANCELLED, "client_closed"), (Outcome.FAILED, "credit_balance_exhausted")]:
        for _ in range(FAILURES_TO_REST):
            health.ended(closed(outcome=outcome, error_code=code))
    assert not health.is_resting and health.failures == 0
    for code in ("upstream_failed", "upstream_timeout", "upstream_failed", "upstream_timeout", "upstream_failed"):
        health.ended(closed(outcome=Outcome.FAILED, error_code=code))
    assert health.is_resting


def test_one_request_tries_a_rested_route_until_one_succeeds(upstreams: Upstreams, clock: Clock) -> None:
    offer = model("bad", "good")
    bad = upstreams.of(target("bad"))
    rests = []
    for _ in range(4):
        fail(upstreams, "bad", FAILURES_TO_REST if not rests else 1)
        began = clock.now
        while bad.is_resting:
            clock.now += 1
        rests.append(clock.now - began)
        assert names(in_order(offer, upstreams)) == ["bad", "good"]  # a trial comes first, so that it is made
        bad.begin()
        assert names(in_order(offer, upstreams)) == ["good", "bad"]  # and is made once
    assert rests == [FIRST_REST_S, LONGEST_REST_S, LONGEST_REST_S, LONGEST_REST_S]
    bad.answered()
    assert not bad.is_resting and upstreams.troubled
    bad.ended(closed())
    assert not upstreams.troubled


def test_a_trial_that_never_ends_keeps_nobody_away_for_long(upstreams: Upstreams, clock: Clock) -> None:
    bad = upstreams.of(target("bad"))
    fail(upstreams, "bad")
    clock.now += FIRST_REST_S
    bad.begin()
    assert bad.is_resting
    clock.now += TRIAL_S
    assert not bad.is_resting


def test_a_route_that_breaks_after_its_trial_rests_again_at_once(upstreams: Upstreams, clock: Clock) -> None:
    bad = upstreams.of(target("bad"))
    fail(upstreams, "bad")
    clock.now += FIRST_REST_S
    bad.begin()
    bad.answered()
    assert not bad.is_resting
    bad.ended(closed(outcome=Outcome.FAILED, error_code="upstream_failed"))
    assert bad.is_resting


def test_requests_that_began_before_a_rest_do_not_make_it_longer(upstreams: Upstreams, clock: Clock) -> None:
    bad = upstreams.of(target("bad"))
    fail(upstreams, "bad", FAILURES_TO_REST + 20)
    clock.now += FIRST_REST_S
    assert not bad.is_resting


def test_the_last_route_is_always_there_and_the_one_that_rests_shortest_is_it(
    upstreams: Upstreams, clock: Clock
) -> None:
    fail(upstreams, "a")
    clock.now += 1
    fail(upstreams, "b")
    offer = model("b", "a")
    assert names(in_order(offer, upstreams)) == ["a", "b"]
    assert not has_usable_route(offer, upstreams)
    assert names(in_order(model("b"), upstreams)) == picked(model("b"), upstreams) == ["b"]
    clock.now += FIRST_REST_S
    assert has_usable_route(offer, upstreams)


@pytest.mark.parametrize(("told_s", "rests_s"), [(2, 2), (0, 1), (3_600, LONGEST_RETRY_AFTER_S)])
def test_retry_after_is_honoured_up_to_a_minute(
    upstreams: Upstreams, clock: Clock, told_s: int, rests_s: float
) -> None:
    busy = upstreams.of(target("busy"))
    busy.failed(GatewayError(UPSTREAM_OVERLOADED, "busy", retry_after_s=told_s))
    offer = model("busy", "free")
    assert {tuple(names(in_order(offer, upstreams))) for _ in range(50)} == {("free", "busy")}
    clock.now += rests_s - 0.01
    assert busy.is_resting
    clock.now += 0.02
    assert not busy.is_resting
    assert {tuple(names(in_order(offer, upstreams))) for _ in range(100)} == {("free", "busy"), ("busy", "free")}


def test_only_an_overloaded_upstream_says_when_to_come_back(upstreams: Upstreams) -> None:
    health = upstreams.of(target("a"))
    health.failed(GatewayError(UPSTREAM_FAILED, "no", retry_after_s=30))
    assert not health.is_resting


def test_retries_are_a_tenth_of_the_requests_with_a_floor(clock: Clock) -> None:
    budget = RetryBudget(clock)
    assert [budget.take() for _ in range(LEAST_RETRIES + 1)] == [True] * LEAST_RETRIES + [False]
    budget.requests += 1_000
    assert sum(budget.take() for _ in range(1_000)) == 1_000 * RETRY_SHARE - LEAST_RETRIES
    clock.now += RETRY_WINDOW_S  # the window before counts too
    assert not budget.take()
    clock.now += RETRY_WINDOW_S
    assert sum(budget.take() for _ in range(100)) == LEAST_RETRIES
    clock.now += 10 * RETRY_WINDOW_S
    assert sum(budget.take() for _ in range(100)) == LEAST_RETRIES


def test_uptime_falls_and_comes_back(upstreams: Upstreams) -> None:
    health = upstreams.of(target("a"))
    fail(upstreams, "a", 3)
    low = health.uptime
    assert 0.7 < low < 0.75
    for _ in range(50):
        health.ended(closed())
    assert health.uptime > 0.99


def test_routes_are_known_by_provider_and_upstream_model(upstreams: Upstreams) -> None:
    one, other = target("a"), target("a", upstream_model="gpt-y")
    assert upstreams.of(one) is upstreams.of(target("a", weight=7))
    assert upstreams.of(one) is not upstreams.of(other)
