"""Where an organization lets its prompts go: no request gets further, and no other organization is touched."""

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import User
from apps.accounts.organizations import create_organization
from apps.catalog.contracts import QUANTIZATIONS, Target
from apps.gateway.admission.offers import models_for
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.errors import GatewayError
from apps.gateway.routing.health import Upstreams
from apps.gateway.routing.order import chosen, permitted
from apps.gateway.routing.wishes import wishes_of
from apps.keys.issuing import create_key
from apps.keys.reading import read_grant
from apps.policies.changing import save_data_policy
from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.policies.models import DataPolicy
from tests.clocks import Clock
from tests.factories import GRANT, TARGET, offered, project, snapshot
from tests.gateway.conftest import Bench

PLACES = [
    msgspec.structs.replace(
        TARGET,
        provider=f"p{number}",
        region=region,
        collects_data=collects,
        zero_retention=zero,
        quantization=quantization,
    )
    for number, (region, collects, zero, quantization) in enumerate(
        product(("", "eu", "us"), (True, False), (True, False), ("unknown", "fp8"))
    )
]
MODEL = offered(targets=tuple(PLACES))
rules = st.builds(
    DataRules,
    regions=st.lists(st.sampled_from(["eu", "us", "asia"]), max_size=2, unique=True).map(tuple),
    denies_collection=st.booleans(),
    requires_zero_retention=st.booleans(),
    denied_providers=st.lists(st.sampled_from([place.provider for place in PLACES]), max_size=5).map(tuple),
)
names = st.lists(st.sampled_from([*(place.provider for place in PLACES), "nobody"]), min_size=1, max_size=30)
wishes = st.fixed_dictionaries(
    {},
    optional={
        "order": names,
        "only": names,
        "ignore": names,
        "allow_fallbacks": st.booleans(),
        "data_collection": st.sampled_from(["allow", "deny"]),
        "zdr": st.booleans(),
        "quantizations": st.lists(st.sampled_from(QUANTIZATIONS), min_size=1),
        "sort": st.sampled_from(["price", "latency", "throughput"]),
    },
)


def limited(data: DataRules | None) -> Any:
    return msgspec.structs.replace(GRANT, policy=Policy(data=data))


def asked(**provider: Any) -> ChatRequest:
    body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], "provider": provider}
    return ChatRequest(model="a", stream=False, choices=1, body=body)


def left(data: DataRules | None, **provider: Any) -> set[str] | str:
    """The routes that may be taken, or the code of the error."""
    request = asked(**provider)
    try:
        found = chosen(MODEL, wishes_of(request).preferences, request, limited(data), upstreams=Upstreams(Clock()))
    except GatewayError as error:
        return error.code or ""
    return {target.provider for target in found}


@given(rules, wishes)
def test_a_request_narrows_and_never_widens(data: DataRules, provider: dict[str, Any]) -> None:
    by_policy = {target.provider for target in PLACES if data.permits(target)}
    if not by_policy:
        assert left(data, **provider) == "data_policy_violation"
        return
    assert {target.provider for target in permitted(MODEL, limited(data))} == by_policy
    alone, both = left(None, **provider), left(data, **provider)
    if isinstance(both, str):
        assert both == "no_matching_provider"
        return
    assert both <= by_policy
    assert isinstance(alone, set)
    if provider.get("allow_fallbacks", True):
        assert both == by_policy & alone


def test_each_rule_leaves_what_it_says() -> None:
    def providers(**fields: Any) -> list[Target]:
        return list(permitted(MODEL, limited(DataRules(**fields))))

    assert {place.region for place in providers(regions=("eu",))} == {"eu"}
    assert all(place.zero_retention for place in providers(requires_zero_retention=True))
    assert {(place.collects_data, place.zero_retention) for place in providers(denies_collection=True)} == {
        (True, True), (False, True), (False, False),
    }  # fmt: skip
    assert "p3" not in {place.provider for place in providers(denied_providers=("p3",))}
    assert len(providers(forbids_copies=True)) == len(PLACES)


def test_wishes_of_a_request_are_kept() -> None:
    kept = {place.provider for place in PLACES if place.zero_retention or not place.collects_data}
    assert left(None, data_collection="deny") == kept
    assert left(None, zdr=True) == {place.provider for place in PLACES if place.zero_retention}
    assert left(None, quantizations=["fp8"]) == {place.provider for place in PLACES if place.quantization == "fp8"}
    assert left(None, quantizations=["fp4"]) == "no_matching_provider"
    assert left(None, data_collection="allow", zdr=False) == {place.provider for place in PLACES}


def offer(bench: Bench) -> None:
    base = bench.target("sandbox-echo")
    here = msgspec.structs.replace(base, provider="hidden-here", region="eu", collects_data=False)
    there = msgspec.structs.replace(base, provider="hidden-there", region="us")
    bench.models |= {
        "both": offered(id="both", targets=(here, there)),
        "there": offered(id="there", targets=(there,)),
        "here": offered(id="here", targets=(here,)),
    }
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


@pytest.mark.asyncio
async def test_the_gateway_sends_nothing_where_it_may_not_go(bench: Bench) -> None:
    offer(bench)
    bench.limit(policy=Policy(data=DataRules(regions=("eu",), denied_providers=("hidden-other",))))
    for _ in range(12):
        call = await bench.chat("both")
        assert (call.status, bench.record(call).opened.provider) == (200, "hidden-here")
    widened = {"only": ["hidden-there"], "data_collection": "allow"}
    assert (await bench.chat("both", provider=widened)).json["error"]["code"] == "no_matching_provider"
    call = await bench.chat("there")
    error = call.json["error"]
    assert (call.status, error["type"], error["code"], error["param"]) == (
        403, "permission_error", "data_policy_violation", "model",
    )  # fmt: skip
    assert "only the regions eu" in error["message"] and "hidden" not in error["message"]
    call = await bench.chat("there", models=["here"])
    assert (call.status, call.json["model"]) == (200, "here")
    assert not any(entry.opened.provider == "hidden-there" for entry in bench.journal() if hasattr(entry, "opened"))


@pytest.mark.asyncio
async def test_lists_show_what_is_left(bench: Bench) -> None:
    offer(bench)
    everything = (await bench.call("/api/v1/models")).json["data"]
    assert {model["id"] for model in everything} == {"base", "both", "there", "here"}
    bench.limit(policy=Policy(data=DataRules(regions=("eu",))))
    assert {model["id"] for model in (await bench.call("/api/v1/models")).json["data"]} == {"both", "here"}
    assert len((await bench.call("/api/v1/models/both/endpoints")).json["data"]["endpoints"]) == 1
    assert len(models_for(GRANT, bench.runtime.snapshot)) == 4


@pytest.mark.django_db
def test_the_decision_comes_with_the_organizations_keys_and_with_no_others() -> None:
    mine, other = project("Mine"), create_organization("Other")
    owner = User.objects.create_user("ann@acme.test", "secret")
    digests = [create_key(place, name="k").key.digest for place in (mine, other.projects.get())]
    assert [read_grant([digest]).policy for digest in digests] == [None, None]  # type: ignore[union-attr]  # it is there
    decided = DataPolicy(organization=mine.organization, regions=["eu"], denies_collection=True)
    save_data_policy(decided, user=owner)
    first, second = (read_grant([digest]) for digest in digests)
    assert first is not None and second is not None and first.policy is not None
    assert first.policy.data == DataRules(regions=("eu",), denies_collection=True)
    assert second.policy is None
    save_data_policy(DataPolicy(organization=mine.organization), user=owner)
    undone = read_grant([digests[0]])
    assert undone is not None and undone.policy is None
