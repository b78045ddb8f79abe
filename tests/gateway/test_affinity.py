"""A conversation stays with the route that has its prompt cache: on every worker, and without anything shared."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.routing.affinity import LEAST_CACHED_BYTES, MOST_HASHED_BYTES, MOST_SESSIONS, Affinity, Sessions
from apps.gateway.routing.health import FAILURES_TO_REST, FIRST_REST_S, Upstreams
from apps.gateway.routing.order import chosen, in_order
from apps.gateway.routing.wishes import Preferences, wishes_of
from apps.usage.contracts import TokenCounts
from tests.clocks import Clock
from tests.factories import GRANT, TARGET, closed, offered, opened, snapshot
from tests.gateway.conftest import Bench

SECRET = b"the same in all workers"
LONG = "You are careful. " * 100


def asked(
    session: str | None = None, *, messages: Any = None, size: int = 2 * LEAST_CACHED_BYTES, **fields: Any
) -> ChatRequest:
    body = {"model": "a", "messages": messages or [{"role": "user", "content": "hi"}], **fields}
    body |= {"session_id": session} if session is not None else {}
    return ChatRequest(model="a", stream=False, choices=1, body=body, body_bytes=size)


def target(provider: str, weight: int = 1) -> Any:
    return msgspec.structs.replace(TARGET, provider=provider, weight=weight)


def worker(clock: Clock | None = None, secret: bytes = SECRET) -> Upstreams:
    return Upstreams(clock or Clock(), secret=secret)


def order(offer: Any, upstreams: Upstreams, request: ChatRequest, organization_id: str = "org_1") -> list[str]:
    return [each.provider for each in in_order(offer, request, organization_id, upstreams=upstreams)]


SPREAD = offered(targets=(target("a", 1), target("b", 3), target("c", 6)))


def test_sessions_are_spread_by_weight() -> None:
    upstreams = worker()
    firsts = Counter(order(SPREAD, upstreams, asked(f"s{number}"))[0] for number in range(10_000))
    assert firsts == {"a": 1_000, "b": 3_090, "c": 5_910}
    assert all(abs(firsts[name] - share) < 3 * share**0.5 for name, share in (("a", 1_000), ("b", 3_000), ("c", 6_000)))


def test_all_workers_choose_alike_without_talking() -> None:
    workers = [worker(), worker(), worker()]
    for number in range(300):
        request = asked(f"s{number}")
        assert len({tuple(order(SPREAD, upstreams, request)) for upstreams in workers}) == 1
    stranger = worker(secret=b"another installation")
    differing = sum(
        order(SPREAD, workers[0], asked(f"s{n}")) != order(SPREAD, stranger, asked(f"s{n}")) for n in range(300)
    )
    assert differing > 100


def test_a_route_that_goes_moves_no_session_but_its_own() -> None:
    upstreams = worker()
    less = offered(targets=SPREAD.targets[:2])
    for number in range(1_000):
        before, after = (order(offer, upstreams, asked(f"s{number}")) for offer in (SPREAD, less))
        assert after == [name for name in before if name != "c"]


def test_more_weight_takes_sessions_from_others_and_moves_none_between_them() -> None:
    upstreams = worker()
    heavier = offered(targets=(target("a", 4), *SPREAD.targets[1:]))
    moved: Counter[tuple[str, str]] = Counter()
    for number in range(1_000):
        moved[order(SPREAD, upstreams, asked(f"s{number}"))[0], order(heavier, upstreams, asked(f"s{number}"))[0]] += 1
    assert {pair for pair in moved if pair[0] != pair[1]} == {("b", "a"), ("c", "a")}


def test_a_session_hops_while_its_route_rests_and_returns() -> None:
    clock = Clock()
    upstreams = worker(clock)
    offer = offered(targets=(target("a"), target("b")))
    mine, other = (
        next(asked(f"s{n}") for n in range(100) if order(offer, upstreams, asked(f"s{n}"))[0] == name) for name in "ab"
    )
    health = upstreams.of(offer.targets[0])
    for _ in range(FAILURES_TO_REST - 1):
        health.failed()
    assert order(offer, upstreams, mine) == ["a", "b"]
    health.failed()
    assert [order(offer, upstreams, request) for request in (mine, other)] == [["b", "a"], ["b", "a"]]
    clock.now += FIRST_REST_S
    assert order(offer, upstreams, other) == ["b", "a"]  # it has its cache there: the trial is for a's own
    assert order(offer, upstreams, mine) == ["a", "b"]
    health.begin()
    assert order(offer, upstreams, mine) == ["b", "a"]
    health.answered()
    health.ended(closed())
    assert order(offer, upstreams, mine) == ["a", "b"]


CANARY = offered(
    targets=(target("a", 1), msgspec.structs.replace(target("new", 1_000), canary_percent=5), target("b", 3))
)


def test_a_canary_gets_its_share_of_sessions_and_is_the_last_way_for_others() -> None:
    upstreams = worker()
    orders = [order(CANARY, upstreams, asked(f"s{number}")) for number in range(10_000)]
    assert Counter(names.index("new") for names in orders) == {0: 519, 2: 9_481}
    assert Counter(names[0] for names in orders if names[0] != "new") == {"a": 2_387, "b": 7_094}
    assert orders[:500] == [order(CANARY, worker(), asked(f"s{number}")) for number in range(500)]
    without = offered(targets=(CANARY.targets[0], CANARY.targets[2]))
    assert [[name for name in names if name != "new"] for names in orders[:500]] == [
        order(without, upstreams, asked(f"s{number}")) for number in range(500)
    ]


def test_the_sessions_of_a_canary_stay_in_it_when_it_grows() -> None:
    upstreams = worker()
    larger = offered(
        targets=tuple(msgspec.structs.replace(each, canary_percent=2 * each.canary_percent) for each in CANARY.targets)
    )
    few, more = (
        {number for number in range(2_000) if order(offer, upstreams, asked(f"s{number}"))[0] == "new"}
        for offer in (CANARY, larger)
    )
    assert few < more
    small = asked(size=0)
    drawn = sum(order(CANARY, upstreams, small)[0] == "new" for _ in range(2_000))
    assert 50 < drawn < 160


def test_a_canary_that_rests_is_left_alone() -> None:
    upstreams = worker()
    mine = next(asked(f"s{n}") for n in range(1_000) if order(CANARY, upstreams, asked(f"s{n}"))[0] == "new")
    for _ in range(FAILURES_TO_REST):
        upstreams.of(CANARY.targets[1]).failed()
    assert order(CANARY, upstreams, mine)[2] == "new"


def turns(system: str, first: str, *others: str) -> list[dict[str, Any]]:
    said = [{"role": "assistant" if n % 2 == 0 else "user", "content": text} for n, text in enumerate(others)]
    return [{"role": "system", "content": system}, {"role": "user", "content": first}, *said]


def test_the_turns_of_a_conversation_are_known_by_how_it_begins() -> None:
    affinity = Affinity(SECRET)
    first = affinity.session_of(asked(messages=turns(LONG, "one")), "org_1")
    assert first == affinity.session_of(asked(messages=turns(LONG, "one", "yes", "two", "no")), "org_1")
    parts = [{"type": "text", "text": "one"}]
    strangers = {
        first,
        affinity.session_of(asked(messages=turns(LONG, "another")), "org_1"),
        affinity.session_of(asked(messages=turns("Other.", "one")), "org_1"),
        affinity.session_of(asked(messages=turns(LONG, "one")), "org_2"),
        affinity.session_of(asked("one"), "org_1"),
        affinity.session_of(asked("one"), "org_2"),
        affinity.session_of(asked(prompt_cache_key="one"), "org_1"),
        Affinity(b"x").session_of(asked(messages=turns(LONG, "one")), "org_1"),
    }
    assert len(strangers) == 8 and None not in strangers
    told_in_parts = [{"role": "system", "content": LONG}, {"role": "user", "content": parts}]
    assert affinity.session_of(asked(messages=told_in_parts), "org_1") == first
    both = affinity.session_of(asked("one", prompt_cache_key="k"), "org_1")
    assert both == affinity.session_of(asked("two", prompt_cache_key="k"), "org_1")


def test_what_is_hashed_is_bounded() -> None:
    affinity, start = Affinity(SECRET), "é" * MOST_HASHED_BYTES
    long, longer = (affinity.session_of(asked(messages=turns(start + end, start + end)), "o") for end in ("", "more"))
    assert long == longer
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}
    odd = [{"role": "user", "content": [image, {"type": "text"}, {}]}, {"role": "user", "content": None}]
    assert affinity.session_of(asked(messages=odd), "o") is not None


def test_small_requests_without_a_name_are_spread_at_random() -> None:
    upstreams = worker()
    small = asked(size=LEAST_CACHED_BYTES - 1)
    assert upstreams.affinity.session_of(small, "org_1") is None
    assert len({order(SPREAD, upstreams, small)[0] for _ in range(200)}) == 3
    assert len({order(SPREAD, upstreams, asked())[0] for _ in range(200)}) == 1


def measure(upstreams: Upstreams, provider: str, latency_ms: int) -> None:
    end = closed(opened(), tokens=TokenCounts(output=9), first_byte_ms=latency_ms, duration_ms=latency_ms + 1_000)
    upstreams.of(target(provider)).ended(end)


def test_sorting_is_for_new_sessions() -> None:
    upstreams, offer = worker(), offered(targets=(target("a"), target("b")))
    fastest = wishes_of(asked(provider={"sort": "latency"})).preferences

    def first(session: str | None) -> str:
        request = asked(session, size=0)
        return chosen(offer, fastest, request, GRANT, upstreams=upstreams)[0].provider

    measure(upstreams, "a", 100)
    measure(upstreams, "b", 200)
    assert (first("old"), first(None)) == ("a", "a")
    measure(upstreams, "b", 0)
    for _ in range(40):
        measure(upstreams, "b", 1)
    assert (first("old"), first("new"), first(None)) == ("a", "b", "b")
    for _ in range(FAILURES_TO_REST):
        upstreams.of(target("a")).failed()
    assert first("old") == "b"
    listed = Preferences(order=("b",), sort="latency")
    assert chosen(offer, listed, asked("old"), GRANT, upstreams=upstreams)[0].provider == "b"


def test_a_worker_remembers_so_many_sessions_and_no_text() -> None:
    sessions, route = Sessions(), target("a")
    for number in range(MOST_SESSIONS + 5):
        sessions.remember(b"%d" % number, route)
    assert sessions.recall(b"4", [route]) is None
    assert sessions.recall(b"5", [target("b"), route]) == route
    assert sessions.recall(b"5", [target("b")]) is None


def two_routes(bench: Bench) -> None:
    base = bench.target("sandbox-echo")
    routes = tuple(msgspec.structs.replace(base, provider=name) for name in ("left", "right"))
    bench.models["two"] = offered(id="two", targets=routes)
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


@pytest.mark.asyncio
@pytest.mark.parametrize("wishes", [{}, {"provider": {"ignore": ["nobody"]}}])
async def test_the_gateway_keeps_sessions_together(bench: Bench, wishes: dict[str, Any]) -> None:
    two_routes(bench)
    body = {"model": "two", "messages": [{"role": "user", "content": "one two three"}], **wishes}
    named: dict[str, set[str]] = {}
    for number in range(24):
        name = f"s{number % 6}"
        headers = {"authorization": f"Bearer {bench.key}", "x-session-id": name}
        as_header = await bench.call("/api/v1/chat/completions", body, headers=headers)
        as_field = await bench.call("/api/v1/chat/completions", {**body, "session_id": name})
        named.setdefault(name, set()).update(bench.record(call).opened.provider for call in (as_header, as_field))
    assert {len(providers) for providers in named.values()} == {1}
    assert {provider for providers in named.values() for provider in providers} == {"left", "right"}


@pytest.mark.asyncio
async def test_a_header_that_is_no_name_is_refused(bench: Bench) -> None:
    two_routes(bench)
    body = {"model": "two", "messages": [{"role": "user", "content": "one"}]}
    call = await bench.call(
        "/api/v1/chat/completions", body, headers={"authorization": f"Bearer {bench.key}", "x-session-id": "x" * 257}
    )
    assert (call.status, call.json["error"]["param"]) == (400, "session_id")


@pytest.mark.asyncio
async def test_the_rate_of_cache_hits_is_shown(bench: Bench) -> None:
    two_routes(bench)
    left, _ = bench.models["two"].targets
    for tokens in (TokenCounts(input=30, cache_read=10), TokenCounts(input=10, cache_read=40, cache_write=10)):
        bench.runtime.upstreams.of(left).ended(closed(tokens=tokens))
    bench.runtime.upstreams.of(left).ended(closed(tokens=TokenCounts(input=500), estimated=True))
    call = await bench.call("/api/v1/models/two/endpoints")
    assert [each["cache_hit_rate_last_30m"] for each in call.json["data"]["endpoints"]] == [0.5, None]


def test_the_next_turn_of_a_stored_response_goes_to_its_route_while_that_is_there_and_well() -> None:
    routes = [target(name, weight) for name, weight in (("a", 100), ("b", 1), ("c", 100))]
    offer = offered(targets=tuple(routes))
    clock = Clock()
    upstreams = worker(clock)
    pinned = asked()
    pinned.pinned = ("b", TARGET.upstream_model)
    assert {order(offer, upstreams, pinned)[0] for _ in range(20)} == {"b"}
    anywhere = chosen(
        offer, wishes_of(asked(provider={"sort": "latency"})).preferences, pinned, GRANT, upstreams=upstreams
    )
    assert anywhere[0].provider == "b"
    wished = chosen(offer, wishes_of(asked(provider={"order": ["c"]})).preferences, pinned, GRANT, upstreams=upstreams)
    assert wished[0].provider == "c"
    for _ in range(FAILURES_TO_REST):
        upstreams.of(routes[1]).begin()
        upstreams.of(routes[1]).failed()
    assert order(offer, upstreams, pinned)[-1] == "b"
    pinned.pinned = ("b", "another model there")
    assert {order(offer, worker(), pinned)[0] for _ in range(50)} <= {"a", "b", "c"}
