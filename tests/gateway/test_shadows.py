"""Copies of requests to a route on trial: the client notices nothing, the operator pays, and nobody is charged."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import orjson
import pytest
import pytest_asyncio

from apps.accounts.organizations import create_organization
from apps.billing.journals import read_journals
from apps.catalog.document import parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.snapshot import load_snapshot
from apps.core.ids import new_id
from apps.gateway.admission.decision import Admission
from apps.gateway.dialects.chat import ChatRequest, parse_chat
from apps.gateway.load.shedding import Level
from apps.gateway.server.stopping import STOPPING
from apps.gateway.shadows import MOST_SHADOWS
from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, ShadowMade, TokenCounts
from apps.usage.journal import Journal
from apps.usage.models import ShadowRecord, UnpostedUsage, UsageRecord, UsageRollup
from apps.usage.shipping import ship
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.upstream.anthropic_shapes import message, text
from tests.upstream.scripted import ScriptedUpstream

SECRET = "sk-shadow-canary-0123456789"
HELLO = {"model": "tried", "messages": [{"role": "user", "content": "one two three"}]}


@pytest_asyncio.fixture
async def trial() -> AsyncIterator[ScriptedUpstream]:
    """The upstream of the route on trial."""
    async with ScriptedUpstream() as started:
        started.answer(message(text("Hi"), model="secret-upstream-model"))
        yield started


def offer(bench: Bench, trial: ScriptedUpstream, percent: int = 100, **changes: Any) -> None:
    on_trial = msgspec.structs.replace(
        bench.target("claude-opus-5"), provider="on-trial", dialect="anthropic", base_url=trial.url, api_key=SECRET,
        shadow_percent=percent, options={"version": "2023-06-01", "beta": "", "thinking": "auto"}, **changes,
    )  # fmt: skip
    bench.models["tried"] = offered(id="tried", targets=(bench.target("sandbox-echo"),), shadows=(on_trial,))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())


async def ask(bench: Bench, **fields: Any) -> Call:
    return await bench.call("/api/v1/chat/completions", {**HELLO, **fields})


def made(bench: Bench) -> list[ShadowMade]:
    return [entry for entry in bench.journal() if isinstance(entry, ShadowMade)]


async def ended(bench: Bench, number: int) -> list[ShadowMade]:
    async with asyncio.timeout(10):
        while len(made(bench)) < number:  # noqa: ASYNC110 - the journal is a file
            await asyncio.sleep(0.01)
    return made(bench)


@pytest.mark.asyncio
@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_is_made_and_recorded_and_nothing_of_it_is_seen(
    bench: Bench, trial: ScriptedUpstream, stream: bool
) -> None:
    offer(bench, trial)
    call = await ask(bench, stream=stream, temperature=0.5)
    assert call.status == 200
    (shadow,) = await ended(bench, 1)
    assert (shadow.of_request, shadow.organization_id, shadow.provider) == (call.request_id, "org_1", "on-trial")
    assert (shadow.outcome, shadow.tokens) == (Outcome.COMPLETED, TokenCounts(input=11, output=6))
    assert (trial.request.headers["x-api-key"], "stream" in trial.request.json) == (SECRET, False)
    entries = bench.journal()
    assert [entry.provider for entry in entries if isinstance(entry, RequestOpened)] == ["local"]
    (record,) = [entry for entry in entries if isinstance(entry, RequestClosed)]
    assert (record.opened.provider, record.attempts) == ("local", ())
    bench.models["tried"] = msgspec.structs.replace(bench.models["tried"], shadows=())
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    alone = bench.record(await ask(bench, stream=stream, temperature=0.5))
    assert (alone.cost_nanos, alone.opened.hold_nanos) == (record.cost_nanos, record.opened.hold_nanos)
    assert record.opened.balance_nanos is not None and alone.opened.balance_nanos is not None
    assert record.opened.balance_nanos - alone.opened.balance_nanos == record.cost_nanos > 0
    assert b"on-trial" not in call.body and "x-crun-dropped-params" not in call.headers


@pytest.mark.asyncio
async def test_the_client_waits_for_no_copy_and_there_are_only_so_many(bench: Bench) -> None:
    never = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    silent = ScriptedUpstream()
    silent._server = server
    assert str(port) in silent.url
    offer(bench, silent)
    shadows = bench.runtime.shadows
    for number in range(MOST_SHADOWS + 3):
        assert (await ask(bench)).status == 200
        assert len(shadows._running) == min(number + 1, MOST_SHADOWS)
    assert (shadows.left_out, made(bench)) == (3, [])
    await shadows.stop()
    assert {shadow.outcome for shadow in made(bench)} == {Outcome.CANCELLED} and len(made(bench)) == MOST_SHADOWS
    never.set()
    server.close()


@pytest.mark.asyncio
async def test_a_worker_that_stops_ends_its_copies_at_once(
    bench: Bench, trial: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(bench, trial)
    monkeypatch.setattr(STOPPING, "is_asked", True)
    bench.runtime.shadows.begin(*admitted(bench))
    assert (bench.runtime.shadows.left_out, trial.requests) == (1, [])
    monkeypatch.setattr(STOPPING, "is_asked", False)
    trial.answers[0].pieces = [b" "] * 1_000_000
    bench.runtime.shadows.begin(*admitted(bench))
    async with asyncio.timeout(10):
        while not trial.requests:  # noqa: ASYNC110 - it looks from outside
            await asyncio.sleep(0.01)
    monkeypatch.setattr(STOPPING, "is_asked", True)
    (shadow,) = await ended(bench, 1)
    assert (shadow.outcome, shadow.error_code) == (Outcome.CANCELLED, "gateway_stopping")


def admitted(bench: Bench) -> Any:
    """A request that is admitted already, and the route that serves it."""
    from_here = bench.models["tried"]
    request: ChatRequest = parse_chat(orjson.dumps(HELLO))
    return Admission(new_id("req"), bench.grant, request, from_here, PRICE), from_here.targets[0]


@pytest.mark.asyncio
async def test_a_busy_worker_makes_none(bench: Bench, trial: ScriptedUpstream) -> None:
    offer(bench, trial)
    bench.runtime.shedding.level = Level.LOW
    bench.runtime.shadows.begin(*admitted(bench))
    assert (bench.runtime.shadows.left_out, len(bench.runtime.shadows._running)) == (1, 0)


@pytest.mark.asyncio
async def test_only_the_share_of_sessions_is_copied_and_wholly(bench: Bench, trial: ScriptedUpstream) -> None:
    offer(bench, trial, percent=40)
    copied: dict[str, set[int]] = {}
    total = 0
    for number in range(45):
        session = f"s{number % 15}"
        before = len(bench.runtime.shadows._running) + len(made(bench))
        await ask(bench, session_id=session)
        await asyncio.sleep(0)
        now = len(bench.runtime.shadows._running) + len(made(bench))
        copied.setdefault(session, set()).add(now - before)
        total += now - before
        await ended(bench, total)
    assert all(len(each) == 1 for each in copied.values())
    assert {each.copy().pop() for each in copied.values()} == {0, 1}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("data", "is_copied"),
    [
        (DataRules(forbids_copies=True), False),
        (DataRules(denied_providers=("on-trial",)), False),
        (DataRules(denied_providers=("other",)), True),
    ],
)
async def test_nobodys_prompt_goes_where_it_may_not(
    bench: Bench, trial: ScriptedUpstream, data: DataRules, is_copied: bool
) -> None:
    offer(bench, trial)
    bench.limit(policy=Policy(data=data))
    assert (await ask(bench)).status == 200
    assert bool(bench.runtime.shadows._running or trial.requests) is is_copied


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("provider", "is_copied"),
    [
        ({"data_collection": "deny"}, False),
        ({"zdr": True}, False),
        ({"ignore": ["on-trial"]}, False),
        ({"only": ["local"]}, False),
        ({"order": ["local"], "allow_fallbacks": False}, False),
        ({"order": ["local"]}, True),
        ({"only": ["local", "on-trial"]}, True),
    ],
)
async def test_no_copy_goes_where_its_caller_wants_no_request_to_go(
    bench: Bench, trial: ScriptedUpstream, provider: dict[str, Any], is_copied: bool
) -> None:
    offer(bench, trial, collects_data=True)
    served = bench.models["tried"]
    private = msgspec.structs.replace(served.targets[0], zero_retention=True)
    bench.models["tried"] = msgspec.structs.replace(served, targets=(private,))
    bench.runtime.catalog.snapshot = snapshot(*bench.models.values())
    assert (await ask(bench, provider=provider)).status == 200
    assert bool(bench.runtime.shadows._running or trial.requests) is is_copied


@pytest.mark.asyncio
async def test_test_traffic_and_own_provider_keys_are_not_copied(bench: Bench, trial: ScriptedUpstream) -> None:
    offer(bench, trial)
    admission, served_by = admitted(bench)
    bench.runtime.shadows.begin(admission, msgspec.structs.replace(served_by, credential_id="cred_1"))
    sandboxed = Admission(
        admission.request_id,
        msgspec.structs.replace(bench.grant, sandbox=True),
        admission.asked,
        admission.model,
        PRICE,
    )
    bench.runtime.shadows.begin(sandboxed, served_by)
    assert not bench.runtime.shadows._running
    bench.runtime.shadows.begin(admission, served_by)
    assert len(bench.runtime.shadows._running) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, orjson.dumps({"error": {"type": "authentication_error", "message": SECRET}}), "upstream_unauthorized"),
        (400, orjson.dumps({"error": {"type": "invalid_request_error", "message": SECRET}}), "bad_request"),
        (200, SECRET.encode(), "upstream_failed"),
        (529, b"", "upstream_overloaded"),
    ],
)
async def test_what_a_copy_meets_stays_there(
    bench: Bench, trial: ScriptedUpstream, caplog: Any, status: int, body: bytes, code: str
) -> None:
    offer(bench, trial)
    trial.answers.clear()
    trial.answer(*([body] if body else []), status=status)
    with caplog.at_level(logging.DEBUG):
        call = await ask(bench)
        (shadow,) = await ended(bench, 1)
    assert (call.status, shadow.outcome, shadow.error_code) == (200, Outcome.FAILED, code)
    journals = b"".join(path.read_bytes() for path in bench.runtime.journal.folder.glob("*.seg"))
    for place in (call.body.decode(), str(call.headers), caplog.text, journals.decode("latin-1")):
        assert SECRET not in place


def shadow_of(organization_id: str, **changes: Any) -> ShadowMade:
    values: dict[str, Any] = {
        "shadow_id": new_id("shadow"), "organization_id": organization_id, "of_request": new_id("req"), "model": "m",
        "provider": "p", "upstream_model": "u", "outcome": Outcome.COMPLETED, "duration_ms": 5,
        "tokens": TokenCounts(input=5, cache_read=2, output=3),
    }  # fmt: skip
    return ShadowMade(**(values | changes))


@pytest.mark.django_db(transaction=True)
def test_copies_are_shipped_once_and_are_in_no_sum(tmp_path: Any) -> None:
    owner = create_organization("Acme").id
    journal = Journal(tmp_path, max_bytes=1 << 20)
    first = shadow_of(owner)
    journal.note(first)
    journal.note(first)
    for _ in range(2):
        ship(tmp_path, close_orphan=lambda *_: pytest.fail("a copy is no request"))
    view = read_journals(tmp_path, [owner])[owner]
    assert (view.opened, view.closed) == ({}, {})
    journal.note(shadow_of(owner, outcome=Outcome.FAILED, error_code="x" * 100))
    journal.close()
    report = ship(tmp_path, close_orphan=lambda *_: pytest.fail("a copy is no request"))
    assert (report.recorded, report.recovered) == (0, 0)
    found = ShadowRecord.objects.for_organization(owner).order_by("id")
    assert [(row.status, row.input_tokens, row.cache_read_tokens, row.output_tokens) for row in found] == [
        ("completed", 7, 2, 3), ("failed", 7, 2, 3),
    ]  # fmt: skip
    assert not any(model.objects.exists() for model in (UsageRecord, UnpostedUsage, UsageRollup))


@pytest.mark.django_db
def test_the_catalog_keeps_shadows_apart_from_the_routes_that_serve() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    model = load_snapshot().models["tried"]
    assert [target.upstream_model for target in model.targets] == ["x"]
    assert [(target.upstream_model, target.shadow_percent) for target in model.shadows] == [("y", 5)]
    exported = export_catalog()
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert "shadow_percent: 5" in rendered and not import_catalog(exported).is_change


DOCUMENT = """
providers: [{id: local, dialect: openai, base_url: "http://127.0.0.1:9/v1"}]
models:
  - id: tried
    context_length: 100
    max_output_tokens: 10
    routes: [{provider: local, upstream_model: x}, {provider: local, upstream_model: y, shadow_percent: 5}]
"""
