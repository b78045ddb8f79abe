"""Organizations' own provider keys at the gateway: which credential each request bears, what it costs, who pays."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from django.conf import settings

from apps.billing.receipts import receipt_of
from apps.billing.recovery import close_orphan
from apps.gateway import dispatch
from apps.gateway.receipts import public_receipt
from apps.gateway.routing.health import FAILURES_TO_REST
from apps.usage.contracts import Outcome, RequestOpened
from tests.factories import PRICE
from tests.gateway.conftest import UPSTREAM_KEY, Bench
from tests.gateway.own_keys import MODEL, KeyedUpstream, Tenants, answer, bearer, own_key, refusal
from tests.gateway.test_fallback import left, make_money
from tests.upstream.scripted import Answer, sse

pytestmark = pytest.mark.asyncio
MINE = "sk-own-key-of-acme-0123456789"
SECOND = "sk-own-key-of-acme-9876543210"
NORMAL = 20 * 150 + 40 * 600
"""What the upstream's answer costs with the operator's credential, in nano-USD."""
FEE = NORMAL // 20


@pytest_asyncio.fixture
async def tenants(bench: Bench) -> AsyncIterator[Tenants]:
    async with KeyedUpstream() as upstream:
        found = Tenants(bench, upstream)
        found.offer()
        yield found


async def test_an_own_key_is_used_and_costs_the_fee_to_the_nano(tenants: Tenants, empty_store: Any) -> None:
    mine = tenants.own(MINE)
    tenants.admit(mine)
    call = await tenants.ask()
    assert call.status == 200 and tenants.upstream.keys == [MINE]
    usage = call.json["usage"]
    assert (usage["is_byok"], round(usage["cost"] * 10**9)) == (True, FEE)
    assert call.headers["x-crun-cost"] == "0.000001350"
    end = tenants.bench.record(call)
    assert (end.cost_nanos, end.opened.credential_id, end.opened.price.fee_ppm) == (FEE, mine.id, 50_000)
    balance, held, holds = await left(tenants.bench, empty_store)
    assert (10**15 - balance, held, holds) == (FEE, 0, 0)
    [attempt] = receipt_of(end, end.opened.price).attempts
    assert (attempt.is_byok, attempt.paid_by, attempt.cost_nanos) == (True, "customer", FEE)


async def test_a_kept_answer_that_an_own_key_made_says_everywhere_that_its_cost_is_a_fee(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "CACHE_PRICE_PPM", 500_000)
    tenants.admit(tenants.own(MINE))
    assert (await tenants.ask(is_cached=True)).status == 200
    async with asyncio.timeout(10):
        while tenants.bench.runtime.cached_answers.keeping:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.005)
    call = await tenants.ask(is_cached=True)
    end = tenants.bench.record(call)
    assert call.headers["x-crun-cache-status"] == "HIT" and tenants.upstream.keys == [MINE]
    told = public_receipt(receipt_of(end, end.opened.price))
    usage = call.json["usage"]
    assert (usage["is_byok"], told["is_byok"], told["receipt"]["attempts"]) == (True, True, [])
    assert told["receipt"]["byok"] == {"fee_percent": "5", "fee": call.headers["x-crun-cost"]}
    assert round(usage["cost"] * 10**9) == end.cost_nanos == FEE // 2


async def test_without_an_own_key_nothing_is_otherwise(tenants: Tenants) -> None:
    tenants.admit()
    call = await tenants.ask()
    assert tenants.upstream.keys == [UPSTREAM_KEY]
    assert (call.json["usage"]["is_byok"], call.headers["x-crun-cost"]) == (False, "0.000027000")
    told = public_receipt(receipt_of(tenants.bench.record(call), PRICE))
    assert told["is_byok"] is False and told["receipt"]["attempts"][0]["is_byok"] is False


async def test_a_stream_with_an_own_key(tenants: Tenants) -> None:
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    tenants.upstream.by_key[MINE] = Answer(
        sse(
            {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}}]},
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {**chunk, "choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 40}},
            "[DONE]",
        )
    )
    tenants.admit(tenants.own(MINE))
    call = await tenants.ask(stream=True)
    assert call.events[-1] == "[DONE]"
    assert (call.events[-2]["usage"]["is_byok"], tenants.bench.record(call).cost_nanos) == (True, FEE)


async def test_two_organizations_interleaved_never_bear_each_others_key(tenants: Tenants) -> None:
    """Connections are shared, headers are not: who bore what is asked of the upstream, request by request."""
    secrets = {"org_a": "sk-own-of-a-00000000000", "org_b": "sk-own-of-b-00000000000", "org_c": UPSTREAM_KEY}
    keys = {
        owner: tenants.admit(*([] if secret == UPSTREAM_KEY else [tenants.own(secret, owner=owner)]), owner=owner)
        for owner, secret in secrets.items()
    }
    owners = [owner for _ in range(67) for owner in keys][:200]
    gate = asyncio.Semaphore(12)

    async def ask(owner: str) -> tuple[str, str]:
        async with gate:
            call = await tenants.ask(key=keys[owner])
            assert call.status == 200
            return owner, call.request_id

    asked = await asyncio.gather(*map(ask, owners))
    bore = {each.headers["x-request-id"]: bearer(each) for each in tenants.upstream.requests}
    assert [bore[request_id] for _, request_id in asked] == [secrets[owner] for owner, _ in asked]
    assert len(bore) == 200
    billed = Counter((end.opened.organization_id, end.cost_nanos) for end in ends(tenants))
    assert set(billed) == {("org_a", FEE), ("org_b", FEE), ("org_c", NORMAL)}


def ends(tenants: Tenants) -> list[Any]:
    return [entry for entry in tenants.bench.journal() if hasattr(entry, "outcome")]


async def test_a_key_of_another_organization_in_a_grant_is_not_used(tenants: Tenants) -> None:
    """It cannot get there; should it, neither the gateway nor the cipher gives it away."""
    theirs = tenants.own(MINE, owner="org_2")
    tenants.admit(theirs)
    await tenants.ask()
    tenants.admit(type(theirs)(id=theirs.id, organization_id="org_1", provider="local", sealed=theirs.sealed))
    await tenants.ask()
    assert tenants.upstream.keys == [UPSTREAM_KEY] * 2


async def test_a_key_opens_for_no_other_host_than_that_it_was_sealed_for(
    tenants: Tenants, caplog: pytest.LogCaptureFixture
) -> None:
    tenants.admit(own_key(MINE, base_url="https://api.vendor.example"))
    assert (await tenants.ask()).status == 200
    tenants.admit(own_key(MINE, base_url="https://api.vendor.example", is_exclusive=True))
    call = await tenants.ask()
    assert (call.status, call.json["error"]["code"]) == (403, "provider_key_refused")
    assert tenants.upstream.keys == [UPSTREAM_KEY]
    assert "cannot be opened" in caplog.text and MINE not in caplog.text


@pytest.mark.parametrize(("status", "code"), [(401, "provider_key_refused"), (429, "upstream_overloaded"),
                                              (404, "upstream_misconfigured"), (500, "upstream_failed")])  # fmt: skip
async def test_a_key_that_fails_falls_through_to_the_operators_at_the_normal_price(
    tenants: Tenants, empty_store: Any, status: int, code: str
) -> None:
    tenants.upstream.by_key[MINE] = refusal(status)
    mine = tenants.own(MINE)
    tenants.admit(mine)
    call = await tenants.ask()
    assert (call.status, tenants.upstream.keys) == (200, [MINE, UPSTREAM_KEY])
    assert (call.json["usage"]["is_byok"], call.headers["x-crun-cost"]) == (False, "0.000027000")
    end = tenants.bench.record(call)
    assert (end.cost_nanos, end.opened.credential_id, end.opened.price.fee_ppm) == (NORMAL, "", None)
    assert [(each.credential_id, each.error_code, each.paid_by) for each in end.attempts] == [
        (mine.id, code, "customer"), ("", "", "customer"),
    ]  # fmt: skip
    told = public_receipt(receipt_of(end, end.opened.price))["receipt"]["attempts"]
    assert [(each["is_byok"], each["cost"]) for each in told] == [(True, "0.000000000"), (False, "0.000027000")]
    assert (await left(tenants.bench, empty_store))[1:] == (0, 0)


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [(401, 403, "provider_key_refused"), (403, 403, "provider_key_refused"), (429, 503, "upstream_overloaded"),
     (404, 502, "upstream_misconfigured")],
)  # fmt: skip
async def test_an_exclusive_key_that_fails_is_the_end(
    tenants: Tenants, empty_store: Any, status: int, told: int, code: str
) -> None:
    tenants.offer("local", "other")
    tenants.upstream.by_key[MINE] = refusal(status, message=f"Incorrect API key provided: {MINE}")
    tenants.admit(tenants.own(MINE, is_exclusive=True))
    call = await tenants.ask()
    assert (call.status, call.json["error"]["code"]) == (told, code)
    assert tenants.upstream.keys == [MINE]
    assert MINE not in call.body.decode() and "operator" not in call.body.decode()
    end = tenants.bench.record(call)
    assert (end.outcome, end.cost_nanos, bool(end.opened.credential_id)) == (Outcome.FAILED, 0, True)
    assert (await left(tenants.bench, empty_store))[1:] == (0, 0)


async def test_what_may_have_been_charged_to_the_own_key_is_not_tried_again(tenants: Tenants) -> None:
    tenants.upstream.by_key[MINE] = Answer([], cut=True)
    tenants.admit(tenants.own(MINE))
    call = await tenants.ask()
    assert call.status == 502
    end = tenants.bench.record(call)
    assert (tenants.upstream.keys, end.cost_nanos) == ([MINE], 0)


async def test_keys_are_tried_in_their_order_and_before_the_operators(tenants: Tenants) -> None:
    tenants.upstream.by_key |= {MINE: refusal(429), SECOND: refusal(401)}
    tenants.admit(tenants.own(SECOND), tenants.own(MINE))
    assert (await tenants.ask()).status == 200
    assert tenants.upstream.keys == [SECOND, MINE, UPSTREAM_KEY]


@pytest.mark.parametrize(
    ("provider", "bore"),
    [
        ({}, [MINE, "sk-operator-a"]),
        ({"order": ["a", "b"]}, [MINE, "sk-operator-a"]),  # an own key comes first, wherever it stands
        ({"order": ["b"], "allow_fallbacks": False}, [MINE, "sk-operator-b"]),
        ({"only": ["a"]}, ["sk-operator-a"]),
        ({"ignore": ["b"]}, ["sk-operator-a"]),
        ({"only": ["b"]}, [MINE, "sk-operator-b"]),
        ({"allow_fallbacks": False}, [MINE]),
    ],
)
async def test_the_callers_preferences_hold(tenants: Tenants, provider: dict[str, Any], bore: list[str]) -> None:
    tenants.offer("a", "b")
    tenants.upstream.by_key[MINE] = refusal(503)
    tenants.admit(tenants.own(MINE, provider="b"))
    if not provider:
        tenants.offer("a")  # one route, so that the dice do not matter
        tenants.admit(tenants.own(MINE, provider="a"))
    await tenants.ask(provider=provider)
    assert tenants.upstream.keys == bore


async def test_preferences_do_not_get_around_an_exclusive_key(tenants: Tenants) -> None:
    tenants.offer("a", "b")
    tenants.admit(tenants.own(MINE, provider="b", is_exclusive=True))
    for provider in ({"only": ["a"]}, {"ignore": ["b"]}):
        call = await tenants.ask(provider=provider)
        assert (call.status, call.json["error"]["code"]) == (404, "no_matching_provider")
    assert (await tenants.ask(provider={"order": ["a"]})).status == 200
    assert tenants.upstream.keys == [MINE]


async def test_a_key_for_some_models_is_for_no_others(tenants: Tenants) -> None:
    tenants.admit(tenants.own(MINE, models=("another-model",), is_exclusive=True))
    await tenants.ask()
    tenants.admit(tenants.own(MINE, models=("another-model", MODEL)))
    await tenants.ask()
    assert tenants.upstream.keys == [UPSTREAM_KEY, MINE]


async def test_hold_is_for_the_dearer_way_and_for_the_fee_alone_where_there_is_no_other(tenants: Tenants) -> None:
    holds = {}
    for name, credentials in {
        "none": (), "own": (tenants.own(MINE),), "exclusive": (tenants.own(MINE, is_exclusive=True),),
    }.items():  # fmt: skip
        tenants.admit(*credentials)
        holds[name] = tenants.bench.record(await tenants.ask(max_tokens=50)).opened.hold_nanos or 0
    assert holds["own"] == holds["none"] > 0
    assert holds["exclusive"] == -(-holds["none"] // 20)
    alone = {"max_tokens": 50, "provider": {"allow_fallbacks": False}}
    for name, credentials in {"none": (), "own": (tenants.own(MINE),)}.items():
        tenants.admit(*credentials)
        holds[name] = tenants.bench.record(await tenants.ask(**alone)).opened.hold_nanos or 0
    assert holds["own"] == -(-holds["none"] // 20)


async def test_money_for_the_fee_alone_is_enough_for_the_own_key_and_for_nothing_else(
    bench: Bench, tenants: Tenants, empty_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.gateway.runtime.rebuild", partial(make_money, 10_000))
    bench.runtime.reservations._rebuilds._rebuild = lambda owners: bench.runtime.bridge.read(  # money is given by hand
        partial(make_money, 10_000, owners, bench.runtime.journal.folder)
    )
    tenants.upstream.by_key[MINE] = answer(prompt=10, completion=10)
    tenants.admit(tenants.own(MINE))
    call = await tenants.ask(max_tokens=100)
    assert (call.status, tenants.upstream.keys) == (200, [MINE])
    tenants.upstream.by_key[MINE] = refusal(429)
    call = await tenants.ask(max_tokens=100)
    assert (call.status, tenants.upstream.keys) == (503, [MINE, MINE])
    tenants.admit()
    assert (await tenants.ask(max_tokens=100)).json["error"]["code"] == "credit_balance_exhausted"
    assert (await left(bench, empty_store))[1:] == (0, 0)


async def test_one_tenants_bad_key_neither_rests_the_route_of_all_nor_takes_their_retries(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants.upstream.by_key[MINE] = refusal(401)
    bad = tenants.admit(tenants.own(MINE))
    runtime = tenants.bench.runtime
    for _ in range(FAILURES_TO_REST):
        assert (await tenants.ask(key=bad)).status == 200
    assert tenants.upstream.keys.count(MINE) == FAILURES_TO_REST
    [shared] = runtime.catalog.snapshot.models[MODEL].targets  # type: ignore[union-attr]  # it was just offered
    assert not runtime.upstreams.troubled and runtime.upstreams.of(shared).failures == 0
    assert runtime.upstreams.of(shared).uptime == 1.0
    assert runtime.upstreams.retries._retries == 0
    await tenants.ask(key=bad)  # the key rests now: its requests go straight to the operator's
    assert tenants.upstream.keys[-1] == UPSTREAM_KEY and tenants.upstream.keys.count(MINE) == FAILURES_TO_REST
    good = tenants.admit(tenants.own(SECOND, owner="org_2"), owner="org_2")
    await tenants.ask(key=good)
    assert tenants.upstream.keys[-1] == SECOND


async def test_an_exclusive_key_is_tried_even_while_it_rests(tenants: Tenants) -> None:
    tenants.upstream.by_key[MINE] = refusal(401)
    tenants.admit(tenants.own(MINE, is_exclusive=True))
    for _ in range(FAILURES_TO_REST + 2):
        assert (await tenants.ask()).status == 403
    assert tenants.upstream.keys == [MINE] * (FAILURES_TO_REST + 2)


async def test_a_sandbox_key_never_uses_one(tenants: Tenants) -> None:
    tenants.admit(tenants.own(MINE), sandbox=True)
    call = await tenants.ask()
    assert (call.status, tenants.upstream.keys) == (403, [])


async def test_a_rotated_or_removed_key_is_not_used_once_the_grant_is_read_again(tenants: Tenants) -> None:
    key = tenants.admit(tenants.own(MINE, name="cred_1"))
    await tenants.ask(key=key)
    grant = tenants.grants[key]
    for credentials, bears in (((tenants.own(SECOND, name="cred_1"),), SECOND), ((), UPSTREAM_KEY)):
        tenants.grants[key] = type(grant)(
            **{name: getattr(grant, name) for name in grant.__struct_fields__ if name != "policy"},
            policy=type(grant.policy)(credentials=credentials),  # type: ignore[misc]  # it has one
        )
        fresh = {each.digest: each for each in tenants.grants.values()}

        async def read(digests: Any, fresh: Any = fresh) -> Any:
            return next(fresh[digest] for digest in digests if digest in fresh)

        tenants.bench.runtime.keys._read = read
        tenants.bench.runtime.keys.distrust("org_1")
        await tenants.ask(key=key)
        assert tenants.upstream.keys[-1] == bears


async def test_who_pays_stands_in_the_journal_before_the_operators_credential_is_used(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between the two attempts: whoever settles bills by the one that was under way."""
    tenants.upstream.by_key[MINE] = refusal(401)
    tenants.admit(tenants.own(MINE))
    seen: list[list[tuple[bool, int | None]]] = []
    original = dispatch.upstream_request

    def watched(*args: Any, **kwargs: Any) -> Any:
        opened = [entry for entry in tenants.bench.journal() if isinstance(entry, RequestOpened)]
        seen.append([(each.is_byok, each.price.fee_ppm) for each in opened])
        return original(*args, **kwargs)

    monkeypatch.setattr(dispatch, "upstream_request", watched)
    call = await tenants.ask()
    assert seen == [[(True, 50_000)], [(True, 50_000), (False, None)]]
    own, shared = [entry for entry in tenants.bench.journal() if isinstance(entry, RequestOpened)]
    assert own.request_id == shared.request_id == call.request_id
    assert own.hold_nanos == shared.hold_nanos
    costs = [close_orphan(entry, 100).cost_nanos for entry in (own, shared)]
    assert costs == [3_022, 60_450]  # 3 tokens in and 100 out: 3 022.5 is rounded to even


@pytest.mark.parametrize("is_exclusive", [True, False])
async def test_a_stream_whose_hold_grows_grows_by_the_fee(
    tenants: Tenants, empty_store: Any, is_exclusive: bool
) -> None:
    text = "word " * 6_000
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    tenants.upstream.by_key[MINE] = Answer(
        sse(
            *(
                {**chunk, "choices": [{"index": 0, "delta": {"content": text[at : at + 500]}}]}
                for at in range(0, 30_000, 500)
            ),
            {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {**chunk, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 6_000}},
            "[DONE]",
        )
    )
    tenants.offer(max_output_tokens=20_000)
    tenants.admit(tenants.own(MINE, is_exclusive=is_exclusive))
    call = await tenants.ask(stream=True)
    end = tenants.bench.record(call)
    assert (call.events[-1], end.tokens.output, end.overage_nanos) == ("[DONE]", 6_000, 0)
    assert end.cost_nanos == (10 * 150 + 6_000 * 600) // 20 <= (end.opened.hold_nanos or 0)
    # What was held at the door for the operator's credential covers the fee of all of it, and need not grow.
    assert (end.opened.hold_nanos or 0) <= (1_000 * 150 + 2_048 * 600)
    assert (await left(tenants.bench, empty_store))[1:] == (0, 0)
