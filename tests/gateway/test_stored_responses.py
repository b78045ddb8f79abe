"""Stored responses: kept before their end is told, gone on from anywhere, found by nobody else."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import httpx
import msgspec
import orjson
import pytest
import pytest_asyncio
from django.conf import LazySettings
from openai import AsyncOpenAI
from openai.types.responses import Response, ResponseItemList
from pydantic import TypeAdapter

from apps.accounts.models import Organization, Project
from apps.core.limits import Limits
from apps.gateway.dialects.responses.history import resolved, without_seals
from apps.gateway.dialects.responses.items import Conversation
from apps.gateway.dialects.thoughts import CLAUDE, pack
from apps.gateway.stored.room import ResponseRoom, owner_of
from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.responses.models import ResponseChain, StoredResponse
from apps.usage.contracts import Outcome
from tests.factories import PRICE, offered, snapshot
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_money import short_connections
from tests.policies.rules import personal, policy
from tests.upstream.conftest import upstream
from tests.upstream.responses_shapes import THOUGHT, text, whole
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream, sse

__all__ = ["short_connections", "upstream"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
PATH = "/api/v1/responses"
WEATHER: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
SIGNED = {"type": "reasoning.text", "text": "hm", "signature": "proof", "format": CLAUDE, "index": 0}
MAIL = "ann@example.com"


@pytest.fixture
def owners(short_connections: None, transactional_db: None) -> None:
    """The rows behind the key of the bench, another project of its organization, and another organization."""
    for organization, projects in (("org_1", ("proj_1", "proj_2")), ("org_2", ("proj_3",))):
        row = Organization.objects.create(id=organization, name=organization, slug=organization.replace("_", "-"))
        for project in projects:
            Project.objects.create(id=project, organization=row, name=project, slug=project.replace("_", "-"))


@pytest_asyncio.fixture
async def kept(owners: None, bench: Bench) -> AsyncIterator[Bench]:
    for name in ("echo", "tools", "fault-cut-2"):
        bench.offer(f"sandbox-{name}")
    yield bench


async def ask(bench: Bench, given: Any = "one two three", model: str = "sandbox-echo", **fields: Any) -> Call:
    headers = fields.pop("headers", {})
    key = {"authorization": f"Bearer {bench.key}"}
    return await bench.call(PATH, {"model": model, "input": given, **fields}, headers=key | headers)


def events(call: Call) -> list[Any]:
    return [orjson.loads(block.partition(b"data: ")[2]) for block in call.body.split(b"\n\n")[:-1]]


async def stored(bench: Bench, work: Callable[[], Any]) -> Any:
    return await bench.runtime.bridge.read(work)


def error(call: Call) -> tuple[int, str, str | None]:
    return call.status, call.json["error"]["code"], call.json["error"]["param"]


async def test_openais_sdk_goes_on_from_stored_responses(kept: Bench) -> None:
    transport = httpx.ASGITransport(app=kept.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncOpenAI(base_url="http://crun/api/v1", api_key=kept.key, http_client=http, max_retries=0)
        first = await client.responses.create(
            model="sandbox-tools", input="weather?", instructions="Be brief.", tools=[WEATHER], metadata={"a": "b"}
        )
        (call,) = first.output
        assert call.type == "function_call" and first.store is True
        kept.runtime.stored.close()
        kept.runtime.stored = ResponseRoom()  # as on another worker: nothing is remembered
        second = await client.responses.create(
            model="sandbox-tools",
            previous_response_id=first.id,
            tools=[WEATHER],
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        )
        assert second.output_text == 'The tool answered: "sunny"' and second.instructions is None
        async with client.responses.stream(
            model="sandbox-echo", previous_response_id=second.id, input="and now?"
        ) as stream:
            third = await stream.get_final_response()
        assert (third.output_text, third.previous_response_id, third.store) == ("and now?", second.id, True)

        again = await client.responses.retrieve(first.id, include=["reasoning.encrypted_content"])
        assert again.model_dump() == first.model_dump()
        page = await client.responses.input_items.list(third.id, limit=2)
        assert [item.type for item in page.data] == ["message", "message"]
        listed = [item async for item in client.responses.input_items.list(third.id, limit=2, order="asc")]
        assert [item.type for item in listed] == [
            "message", "function_call", "function_call_output", "message", "message",
        ]  # fmt: skip
        assert len({item.id for item in listed}) == 5
        named = await client.responses.create(
            model="sandbox-echo", input=[{"type": "item_reference", "id": str(listed[-1].id)}]
        )
        assert named.output_text == "and now?"
        await client.responses.delete(second.id)

    gone = await kept.call(f"{PATH}/{second.id}")
    assert error(gone) == (404, "response_not_found", None)
    assert (await kept.call(f"{PATH}/{third.id}")).json["output_text"] == "and now?"
    assert error(await ask(kept, previous_response_id=third.id)) == (
        400, "previous_response_not_found", "previous_response_id",
    )  # fmt: skip
    left = await kept.call(f"{PATH}/{third.id}/input_items")
    assert [item["role"] for item in left.json["data"]] == ["user"]


async def test_what_is_listed_and_given_again_has_the_published_shapes(kept: Bench) -> None:
    given = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
        {"role": "assistant", "content": "two"},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"role": "user", "content": "one two three"},
    ]
    call = await ask(kept, given)
    name = call.json["id"]
    TypeAdapter(Response).validate_python((await kept.call(f"{PATH}/{name}")).json, strict=True)
    page = (await kept.call(f"{PATH}/{name}/input_items", query="order=asc")).json
    TypeAdapter(ResponseItemList).validate_python(page, strict=True)
    assert (page["has_more"], page["first_id"], page["last_id"]) == (
        False, page["data"][0]["id"], page["data"][-1]["id"],
    )  # fmt: skip
    rest = await kept.call(f"{PATH}/{name}/input_items", query=f"order=asc&limit=1&after={page['data'][3]['id']}")
    assert rest.json["data"] == [page["data"][4]] and rest.json["has_more"] is True
    for odd in ("resp_%00", "resp_" + "x" * 32, "a" * 300):
        assert (await kept.call(f"{PATH}/{odd}")).status == (await kept.call(f"{PATH}/{odd}/input_items")).status == 404
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_no"):
        assert (await kept.call(f"{PATH}/{name}/input_items", query=query)).status == 400
    assert (await kept.call(f"{PATH}/{name}", query="stream=true")).json["error"]["param"] == "stream"
    assert (await kept.call(f"{PATH}/{name}/cancel", {})).status == 400
    assert error(await kept.call(f"{PATH}/resp_no/cancel", {})) == (404, "response_not_found", None)


async def test_nobody_else_finds_it_and_cannot_tell_that_it_is_there(kept: Bench) -> None:
    mine = (await ask(kept)).json
    name, item = mine["id"], mine["output"][0]["id"]
    owner = kept.grant
    others = (
        {"organization_id": "org_2", "project_id": "proj_3"},
        {"organization_id": "org_2"},
        {"project_id": "proj_2"},
        {"sandbox": True},
    )
    for other in others:
        kept.limit(**other)
        for method, path in (
            ("GET", name),
            ("DELETE", name),
            ("GET", f"{name}/input_items"),
            ("POST", f"{name}/cancel"),
        ):
            call = await kept.call(f"{PATH}/{path}", method=method)
            unknown = await kept.call(f"{PATH}/{path.replace(name, 'resp_' + '0' * 32)}", method=method)
            assert call.status == unknown.status == 404
            assert call.body == unknown.body.replace(b"0" * 32, name[5:].encode())
        assert error(await ask(kept, previous_response_id=name))[1] == "previous_response_not_found"
        assert error(await ask(kept, [{"type": "item_reference", "id": item}]))[2] == "input[0]"
        kept.limit(**{field: getattr(owner, field) for field in other})
    assert (await kept.call(f"{PATH}/{name}")).json == mine

    # Nor is a row readable that came to another owner by whatever way: what is in it is bound to its own.
    await stored(kept, lambda: ResponseChain.objects.update(organization_id="org_2", project_id="proj_3"))
    kept.limit(**others[0])
    assert (await kept.call(f"{PATH}/{name}")).status == 404
    sealed = await stored(kept, lambda: bytes(StoredResponse.objects.get().sealed))
    assert b"one two" not in sealed
    kept.limit(revoked_at=1.0)
    assert (await kept.call(f"{PATH}/{name}")).status == 401


async def test_who_does_not_want_it_stored_pays_nothing_for_it(kept: Bench) -> None:
    for stream in (False, True):
        call = await ask(kept, store=False, stream=stream)
        assert call.status == 200 and b'"store":false' in call.body and b'"store":true' not in call.body
    assert await stored(kept, ResponseChain.objects.count) == 0
    assert not kept.runtime.stored._writing._pool._threads


@pytest.mark.parametrize(
    ("rules", "fields", "days"),
    [
        (DataRules(forbids_storage=True), {}, 30),
        (DataRules(requires_zero_retention=True), {}, 30),
        (None, {"provider": {"zdr": True}}, 30),
        (None, {}, 0),
    ],
)
async def test_storage_can_be_forbidden(
    kept: Bench, settings: LazySettings, rules: DataRules | None, fields: Any, days: int
) -> None:
    earlier = (await ask(kept)).json["id"]
    zero = msgspec.structs.replace(kept.target("sandbox-echo"), zero_retention=True)
    kept.models["sandbox-echo"] = msgspec.structs.replace(kept.models["sandbox-echo"], targets=(zero,))
    kept.runtime.catalog.snapshot = msgspec.structs.replace(
        kept.runtime.catalog.snapshot, models={**kept.runtime.catalog.snapshot.models, **kept.models}
    )
    settings.RESPONSES_DAYS = days
    if rules is not None:
        kept.limit(policy=Policy(data=rules))
    call = await ask(kept, **fields)
    assert (call.status, call.json["store"]) == (200, False)
    assert error(await ask(kept, store=True, **fields)) == (400, "storage_forbidden", "store")
    for store in (None, False):
        refused = await ask(kept, previous_response_id=earlier, store=store, **fields)
        assert error(refused) == (400, "storage_forbidden", "previous_response_id")
    reference = await ask(kept, [{"type": "item_reference", "id": "msg_1"}], **fields)
    assert error(reference) == (400, "storage_forbidden", "input")
    assert await stored(kept, StoredResponse.objects.count) == 1
    assert len(kept.truth()) == 2  # nobody was asked, and paid, for what was refused


async def test_what_is_too_large_to_be_stored_is_refused_before_anybody_is_asked(
    kept: Bench, settings: LazySettings
) -> None:
    first = (await ask(kept)).json["id"]
    settings.RESPONSES_MAX_BYTES = 40
    assert (await ask(kept)).json["store"] is False
    for fields in ({"store": True}, {"previous_response_id": first}):
        assert error(await ask(kept, **fields)) == (413, "request_too_large", "store")
    assert len(kept.truth()) == 2


async def test_a_short_request_cannot_be_made_large_by_what_it_refers_to(
    kept: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [await ask(kept, "x" * 700_000, model="sandbox-tools") for _ in range(3)]
    named = [{"type": "item_reference", "id": f"msg_{call.json['id'].partition('_')[2]}i00"} for call in calls]
    both = await ask(kept, named[:2], model="sandbox-tools")
    assert both.status == 200
    assert kept.record(both).opened.hold_nanos >= 128_000 * PRICE.input // 1_000_000  # with that text, all the context
    assert error(await ask(kept, [named[0], named[0]], model="sandbox-tools")) == (400, None, "input")
    assert (await ask(kept, named, model="sandbox-tools")).status == 413  # as if it came with all that text
    monkeypatch.setattr("apps.gateway.stored.room.MAX_CHAIN_BYTES", 1_000_000)
    assert error(await ask(kept, named[:2], model="sandbox-tools")) == (400, None, "input")
    assert len(kept.truth()) == 4


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_stored_is_given_and_billed_and_says_so(kept: Bench, stream: bool) -> None:
    kept.limit(project_id="proj_of_nobody")  # so PostgreSQL refuses the row
    call = await ask(kept, stream=stream)
    end = kept.record(call)
    assert (end.outcome, end.cost_nanos > 0) == (Outcome.COMPLETED, True)
    told = events(call)[-1]["response"] if stream else call.json
    assert (told["status"], told["output_text"], told["store"]) == ("completed", "one two three", False)
    if stream:
        numbers = [event["sequence_number"] for event in events(call)]
        assert numbers == list(range(len(numbers))) and events(call)[-1]["type"] == "response.completed"
    kept.limit(project_id="proj_1")
    assert (await kept.call(f"{PATH}/{told['id']}")).status == 404


async def test_a_response_that_failed_is_stored_and_one_whose_client_left_is_not(kept: Bench) -> None:
    broken = await ask(kept, model="sandbox-fault-cut-2", stream=True)
    failed = events(broken)[-1]
    assert (failed["type"], failed["response"]["store"]) == ("response.failed", True)
    name = failed["response"]["id"]
    assert (await kept.call(f"{PATH}/{name}")).json == failed["response"]
    assert error(await ask(kept, previous_response_id=name)) == (400, None, "previous_response_id")

    body = {"model": "sandbox-echo", "input": "one two three", "stream": True, "sandbox": {"chunk_delay_ms": 200}}
    left = kept.start(PATH, body)
    await left.until(lambda call: b"output_text.delta" in call.body)
    left.leave()
    assert left.task is not None
    await left.task
    assert kept.record(left).outcome is Outcome.CANCELLED
    assert await stored(kept, StoredResponse.objects.count) == 1


async def test_what_vendors_want_back_goes_back_though_nobody_asked_for_it(
    kept: Bench, upstream: ScriptedUpstream
) -> None:
    target = upstream.offer(kept, "openai")
    call = {"id": "c1", "index": 0, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    signed = {"google": {"thought_signature": "seal"}}
    delta = {"reasoning_details": [SIGNED], "tool_calls": [{**call, "extra_content": signed}]}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    ended = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    pieces = ({**chunk, "choices": [{"index": 0, "delta": delta}]}, {**chunk, "choices": [ended], "usage": usage})
    upstream.answer(*sse(*pieces, "[DONE]"))
    first = await ask(kept, "weather?", PUBLIC_MODEL, tools=[WEATHER], stream=True)
    assert b"proof" not in first.body and b"encrypted_content" not in first.body
    name = events(first)[-1]["response"]["id"]
    (turn,) = (await kept.runtime.stored.chain(owner_of(kept.grant), name)).turns
    assert turn.route == (target.provider, target.upstream_model)
    assert [item["type"] for item in turn.output] == ["reasoning", "reasoning", "function_call"]
    output = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
    await ask(kept, [output], PUBLIC_MODEL, tools=[WEATHER], stream=True, previous_response_id=name)
    sent = upstream.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    conversation = Conversation([])
    for item in turn.output:
        conversation.add(item, "input")
    (message,) = conversation.end()
    assert message["reasoning_details"] == [SIGNED] and message["tool_calls"][0]["extra_content"] == signed


async def test_what_is_stored_is_what_left(kept: Bench, upstream: ScriptedUpstream) -> None:
    kept.limit(policy=policy(personal("email", direction="input")))
    upstream.offer(kept, "openai")
    message = {"role": "assistant", "content": "yes"}
    upstream.answer(
        orjson.dumps({
            "id": "x", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
        })
    )  # fmt: skip
    custom = {"type": "custom", "name": "send", "description": f"as {MAIL}"}
    given = [
        {"role": "user", "content": [{"type": "input_text", "text": f"to {MAIL}"}]},
        {"type": "custom_tool_call", "call_id": "c1", "name": "send", "input": f"mail {MAIL}"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": f"sent to {MAIL}"},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "a "}, {"type": "output_text", "text": MAIL}],
        },
        {"role": "user", "content": f"and {MAIL}"},
    ]
    fields: Any = {"instructions": f"You are {MAIL}.", "tools": [custom], "safety_identifier": MAIL}
    first = (await ask(kept, given, PUBLIC_MODEL, **fields)).json
    assert first["store"] is True
    for path in (first["id"], f"{first['id']}/input_items"):
        seen = await kept.call(f"{PATH}/{path}", query="order=asc" if "items" in path else "")
        assert seen.status == 200 and b"example.com" not in seen.body and b"[EMAIL_1]" in seen.body
    assert [item["type"] for item in seen.json["data"]] == [
        "message", "custom_tool_call", "custom_tool_call_output", "message", "message",
    ]  # fmt: skip
    before = upstream.requests[-1].json["messages"]
    await ask(kept, f"then {MAIL}", PUBLIC_MODEL, previous_response_id=first["id"], **fields)
    after = upstream.requests[-1].json["messages"]
    assert after[: len(before)] == before
    assert after[len(before) :] == [message, {"role": "user", "content": "then [EMAIL_1]"}]


async def test_a_repeated_request_is_stored_once_and_can_be_gone_on_from(kept: Bench) -> None:
    headers = {"idempotency-key": "one"}
    first, again = [await ask(kept, headers=headers) for _ in range(2)]
    assert first.body == again.body and again.headers["x-crun-idempotent-replay"] == "true"
    assert await stored(kept, StoredResponse.objects.count) == 1
    cached = [await ask(kept, headers={"x-crun-cache": "on"}) for _ in range(2)]
    assert [call.headers["x-crun-cache-status"] for call in cached] == ["MISS", "HIT"]
    names = [call.json["id"] for call in (again, *cached)]
    assert len(set(names)) == 3
    for name in names:
        assert (await ask(kept, "four", previous_response_id=name)).json["output_text"] == "four"


async def test_where_the_vendor_is_gone_nobody_gets_what_it_encrypted(kept: Bench) -> None:
    given = [
        {"type": "reasoning", "summary": [], "encrypted_content": "theirs"},
        {"type": "reasoning", "summary": [], "encrypted_content": pack([SIGNED])},
        {"role": "user", "content": "one"},
    ]
    first = (await ask(kept, given)).json["id"]
    gone = msgspec.structs.replace(kept.target("sandbox-echo"), provider="another")
    kept.models["sandbox-echo"] = offered(id="sandbox-echo", targets=(gone,))
    kept.runtime.catalog.snapshot = snapshot(*kept.models.values())
    name = "input.reasoning.encrypted_content"
    assert name in (await ask(kept, previous_response_id=first)).headers["x-crun-dropped-params"]
    assert without_seals(given, lambda sealed: False) == [{"type": "reasoning", "summary": []}, *given[1:]]


@pytest.mark.parametrize("way", ["as it came", "guarded", "conversation"])
async def test_what_an_account_encrypted_goes_to_no_other_one(
    kept: Bench, upstream: ScriptedUpstream, way: str
) -> None:
    """The route that answered rests: another one of the same dialect would refuse the whole request."""
    if way == "guarded":  # then the chat goes, and not the request as it came
        kept.limit(policy=policy(personal("email", direction="input")))
    first = upstream.offer(kept, "openai-responses", upstream_model="gpt-5-secret")
    other = msgspec.structs.replace(first, provider="other")
    kept.models[PUBLIC_MODEL] = msgspec.structs.replace(kept.models[PUBLIC_MODEL], targets=(first, other))
    kept.runtime.catalog.snapshot = snapshot(*kept.models.values())
    header, seal = "x-crun-dropped-params", "input.reasoning.encrypted_content"
    upstream.answer(whole(THOUGHT | {"encrypted_content": "of the first"}, text("one")))
    going_on: dict[str, Any] = {}
    if way == "conversation":
        going_on = {"conversation": (await kept.call("/api/v1/conversations", {})).json["id"]}
    call = await ask(kept, "one", PUBLIC_MODEL, **going_on)

    upstream.answers.clear()
    upstream.answer(b"{}", status=429, headers={"retry-after": "60"})
    upstream.answer(whole(THOUGHT | {"encrypted_content": "of the second"}, text("two")))
    call = await ask(kept, "two", PUBLIC_MODEL, **(going_on or {"previous_response_id": call.json["id"]}))
    assert (call.status, seal in call.headers[header], call.json["store"]) == (200, True, True)
    to_first, to_second = upstream.requests[-2:]
    assert (b"of the first" in to_first.body, b"of the first" in to_second.body) == (True, False)

    call = await ask(kept, "three", PUBLIC_MODEL, **(going_on or {"previous_response_id": call.json["id"]}))
    assert (call.status, seal in call.headers[header]) == (200, True)
    sent = upstream.requests[-1].body
    assert b"of the second" in sent and b"of the first" not in sent


async def test_what_is_referred_to_counts_towards_the_size_of_what_is_stored(
    kept: Bench, settings: LazySettings
) -> None:
    calls = [await ask(kept, "x" * 3_000, model="sandbox-tools") for _ in range(2)]
    named = [{"type": "item_reference", "id": f"msg_{call.json['id'].partition('_')[2]}i00"} for call in calls]
    settings.RESPONSES_MAX_BYTES = 5_000
    assert (await ask(kept, named[:1], model="sandbox-tools")).json["store"] is True
    call = await ask(kept, named, model="sandbox-tools")
    assert (call.status, call.json["store"]) == (200, False)
    assert kept.runtime.stored.not_stored == {"too_large": 1}
    for fields in ({"store": True}, {"previous_response_id": calls[0].json["id"]}):
        refused = await ask(kept, named, model="sandbox-tools", **fields)
        assert error(refused) == (413, "request_too_large", "store")
    assert (await ask(kept, named, model="sandbox-tools", store=False)).status == 200
    assert len(kept.truth()) == 5


async def test_a_turn_is_gone_through_once_however_many_of_its_items_are_named(kept: Bench) -> None:
    """Looked for one by one, 24,000 of them kept a worker from everything else for 37 s."""
    name = (await ask(kept, [{"role": "user", "content": "x"}] * 100)).json["id"]
    references = [{"type": "item_reference", "id": f"msg_{name[5:]}i{place:02x}"} for place in range(101)]
    turns = await kept.runtime.stored.find(owner_of(kept.grant), [name])
    turns[name].input = _Counted(turns[name].input)
    made, size = resolved(references, turns)
    assert made == [*turns[name].input, references[100]]  # there is no such item
    assert turns[name].input.looks == 200  # one of them is the line above
    assert size > 100 * len('{"type":"message","role":"user","content":"x"}')


class _Counted(list[Any]):
    looks = 0

    def __iter__(self) -> Iterator[Any]:
        for item in list.__iter__(self):
            self.looks += 1
            yield item


async def test_reading_and_deleting_count_as_requests(kept: Bench) -> None:
    name = (await ask(kept)).json["id"]
    kept.limit(key_limits=Limits(requests_per_minute=2, tokens_per_minute=1, concurrency=1))
    for path in (name, f"{name}/input_items"):
        seen = await kept.call(f"{PATH}/{path}")
        assert (seen.status, seen.headers["x-ratelimit-limit-requests"]) == (200, "2")
    for method, path in (("GET", name), ("GET", f"{name}/input_items"), ("DELETE", name), ("POST", f"{name}/cancel")):
        refused = await kept.call(f"{PATH}/{path}", method=method)
        assert error(refused) == (429, "rate_limit_exceeded", None) and int(refused.headers["retry-after"]) >= 1
    kept.limit(key_limits=Limits())
    assert (await kept.call(f"{PATH}/{name}")).status == 200
    assert len(kept.truth()) == 1 and len(kept.journal()) == 2  # no upstream was asked, and there is no record of it


async def test_answers_are_stored_while_another_organization_reads_all_the_time(kept: Bench) -> None:
    """The threads that read are taken, by as many organizations as there are threads."""
    may_end = threading.Event()
    readers = kept.runtime.stored._readers
    busy = [asyncio.create_task(readers.read(f"org_{number}", partial(may_end.wait, 20))) for number in (8, 9)]
    try:
        for stream in (False, True):
            assert (await ask(kept, stream=stream)).body.count(b'"store":true')
    finally:
        may_end.set()
    assert all(await asyncio.gather(*busy))
