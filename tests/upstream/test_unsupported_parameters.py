"""What a route has no words for: left out and named, refused where the model's policy says so, or never left out."""

from typing import Any

import msgspec
import pytest

from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.snapshot import load_snapshot
from apps.gateway.errors import GatewayError
from apps.gateway.providers.conversation import COMMON_FIELDS
from apps.gateway.providers.loss import NEVER_DROPPED, check_loss, refuse_unknown
from apps.usage.contracts import Outcome
from tests.factories import offered, snapshot
from tests.gateway.conftest import Bench
from tests.upstream.anthropic_shapes import message, text
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream

CHAT = {"model": PUBLIC_MODEL, "messages": [{"role": "user", "content": "hello"}], "seed": 7, "logprobs": True}
DOCUMENT = """
providers:
  - {id: local, dialect: openai, base_url: "http://127.0.0.1:9/v1"}
models:
  - id: strict
    context_length: 100
    max_output_tokens: 10
    unsupported_parameters: refuse
    routes: [{provider: local, upstream_model: x}]
  - {id: easy, context_length: 100, max_output_tokens: 10, routes: [{provider: local, upstream_model: x}]}
"""


def also_at_sandbox(bench: Bench) -> None:
    """Give the model a second route, which speaks OpenAI's dialect."""
    model = bench.models[PUBLIC_MODEL]
    spare = msgspec.structs.replace(bench.target("sandbox-echo"), provider="spare")
    bench.models[PUBLIC_MODEL] = msgspec.structs.replace(model, targets=(*model.targets, spare))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


@pytest.mark.asyncio
@pytest.mark.parametrize("refuses", [False, True])
async def test_the_model_says_what_becomes_of_it(bench: Bench, upstream: ScriptedUpstream, refuses: bool) -> None:
    upstream.offer(bench, "anthropic", refuses_unsupported=refuses)
    upstream.answer(message(text("Hi")))
    call = await bench.call("/api/v1/chat/completions", CHAT)
    if not refuses:
        assert (call.status, call.headers["x-crun-dropped-params"]) == (200, "seed, logprobs")
        return
    error = call.json["error"]
    assert (call.status, error["type"], error["code"], error["param"]) == (
        400, "invalid_request_error", "unsupported_parameter", "seed",
    )  # fmt: skip
    assert upstream.requests == []
    record = bench.record(call)
    assert (record.outcome, record.cost_nanos) == (Outcome.FAILED, 0)


@pytest.mark.asyncio
async def test_a_model_that_refuses_serves_what_its_routes_have_words_for(
    bench: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(bench, "anthropic", refuses_unsupported=True)
    upstream.answer(message(text("Hi")))
    plain = {"model": PUBLIC_MODEL, "messages": CHAT["messages"], "temperature": 0.5}
    assert (await bench.call("/api/v1/chat/completions", plain)).status == 200
    also_at_sandbox(bench)
    for _ in range(6):
        call = await bench.call("/api/v1/chat/completions", {**CHAT, "logprobs": None})
        assert (call.status, "x-crun-dropped-params" in call.headers) == (200, False)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("name", NEVER_DROPPED)
@pytest.mark.parametrize("refuses", [False, True])
def test_no_policy_lets_these_be_dropped(name: str, refuses: bool) -> None:
    with pytest.raises(GatewayError) as refusal:
        check_loss(("seed", name) if not refuses else (name,), offered(refuses_unsupported=refuses))
    assert (refusal.value.code, refusal.value.param) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", sorted(set(NEVER_DROPPED) - COMMON_FIELDS))
def test_a_dialect_that_does_not_know_them_refuses_by_itself(name: str) -> None:
    body: dict[str, Any] = {name: ["something"]}
    with pytest.raises(GatewayError) as refusal:
        refuse_unknown(body, COMMON_FIELDS)
    assert refusal.value.param == name
    refuse_unknown(body, COMMON_FIELDS | {name})


@pytest.mark.parametrize(
    "silent", [{"n": 1}, {"modalities": ["text"]}, {"modalities": []}, {"functions": []}, {"response_format": None}]
)
def test_what_says_nothing_is_not_refused(silent: dict[str, Any]) -> None:
    refuse_unknown(silent, COMMON_FIELDS)


@pytest.mark.django_db
def test_the_policy_reaches_the_gateway_and_comes_out_again() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    policies = {model.id: model.refuses_unsupported for model in load_snapshot().models.values()}
    assert policies == {"strict": True, "easy": False}
    exported = export_catalog()
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert rendered.count("unsupported_parameters: refuse") == 1 == rendered.count("unsupported_parameters")
    assert not import_catalog(exported).is_change


def test_another_policy_is_refused_with_its_line() -> None:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(DOCUMENT.replace("refuse", "ignore"), source="test")
    assert "8: models[0].unsupported_parameters: must be one of drop, refuse" in str(caught.value)
