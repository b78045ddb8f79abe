"""Conversations: kept as OpenAI keeps them, gone on from by every model, found by nobody else."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from django.conf import LazySettings
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import ResponseInputItemParam

from apps.core.limits import Limits
from apps.gateway.stored.room import owner_of
from apps.policies.contracts import Policy
from apps.policies.data_rules import DataRules
from apps.responses.models import ConversationItem as ItemRow
from apps.responses.models import ResponseChain, StoredResponse
from apps.usage.contracts import Outcome
from tests.dialects.typed import matches
from tests.gateway.conftest import Bench, Call
from tests.gateway.test_money import short_connections
from tests.gateway.test_stored_responses import (
    MAIL,
    SIGNED,
    WEATHER,
    ask,
    error,
    events,
    kept,
    owners,
    stored,
)
from tests.policies.rules import personal, policy
from tests.upstream.conftest import upstream
from tests.upstream.scripted import PUBLIC_MODEL, ScriptedUpstream, sse

__all__ = ["kept", "owners", "short_connections", "upstream"]
pytestmark = [pytest.mark.asyncio, pytest.mark.django_db(transaction=True)]
PATH = "/api/v1/conversations"
HEX = "0" * 32
WHOLE = orjson.dumps({
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
})  # fmt: skip
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}


async def on(bench: Bench, path: str = "", body: Any = None, **kwargs: Any) -> Call:
    return await bench.call(f"{PATH}{path}", body, **kwargs)


async def begun(bench: Bench, *items: Any, **fields: Any) -> str:
    call = await on(bench, "", {**({"items": list(items)} if items else {}), **fields})
    assert call.status == 200, call.body
    matches(Conversation, call.json)
    return str(call.json["id"])


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def said(bench: Bench, name: str) -> list[str]:
    """Who said what in a conversation, or the kind of what is not said."""
    page = (await on(bench, f"/{name}/items", query="order=asc&limit=100")).json
    if page["data"]:
        matches(ConversationItemList, page)
    return [
        f"{item['role']}: {item['content'][0]['text']}" if item["type"] == "message" else item["type"]
        for item in page["data"]
    ]


async def test_openais_sdk_keeps_a_conversation(kept: Bench) -> None:
    transport = httpx.ASGITransport(app=kept.app)  # type: ignore[arg-type]  # its scope is a plain dict
    async with httpx.AsyncClient(transport=transport) as http:
        client = AsyncOpenAI(base_url="http://crun/api/v1", api_key=kept.key, http_client=http, max_retries=0)
        given: list[ResponseInputItemParam] = [{"type": "message", "role": "developer", "content": "Be brief."}]
        made = await client.conversations.create(items=given, metadata={"topic": "weather"})
        assert (made.object, made.metadata) == ("conversation", {"topic": "weather"})
        assert await client.conversations.retrieve(made.id) == made
        first = await client.responses.create(
            model="sandbox-tools", conversation=made.id, input="weather?", tools=[WEATHER]
        )
        assert first.conversation is not None and first.conversation.id == made.id and first.store is True
        (call,) = first.output
        assert call.type == "function_call"
        async with client.responses.stream(
            model="sandbox-tools",
            conversation={"id": made.id},
            tools=[WEATHER],
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}],
        ) as stream:
            second = await stream.get_final_response()
        assert second.output_text == 'The tool answered: "sunny"' and second.conversation == first.conversation
        listed = [item async for item in client.conversations.items.list(made.id, limit=2, order="asc")]
        assert [item.type for item in listed] == [
            "message", "message", "function_call", "function_call_output", "message",
        ]  # fmt: skip
        latest = await client.conversations.items.list(made.id, limit=1, include=["reasoning.encrypted_content"])
        assert latest.data == listed[-1:] and latest.has_more
        page = await client.conversations.items.create(made.id, items=[{"role": "user", "content": "and now?"}])
        (new,) = page.data
        assert new.type == "message" and new.status == "completed"
        third = await client.responses.create(model="sandbox-echo", conversation=made.id)  # what is there is enough
        assert third.output_text == "and now?"
        assert await client.conversations.items.retrieve(str(new.id), conversation_id=made.id) == new
        left = await client.conversations.items.delete(str(new.id), conversation_id=made.id)
        assert left == made
        with pytest.raises(NotFoundError, match="There is no item"):
            await client.conversations.items.retrieve(str(new.id), conversation_id=made.id)
        told = await client.conversations.update(made.id, metadata={"topic": "all"})
        assert told.metadata == {"topic": "all"} and told.created_at == made.created_at
        gone = await client.conversations.delete(made.id)
        assert (gone.deleted, gone.object) == (True, "conversation.deleted")
        for path in (client.conversations.retrieve, client.responses.retrieve):
            with pytest.raises(NotFoundError):
                await path(made.id if path == client.conversations.retrieve else first.id)
        with pytest.raises(NotFoundError) as raised:
            await client.responses.create(model="sandbox-echo", conversation=made.id, input="x")
        assert (raised.value.code, raised.value.param) == ("conversation_not_found", "conversation")
        with pytest.raises(BadRequestError, match="not from both"):
            await client.responses.create(
                model="sandbox-echo", conversation=made.id, previous_response_id=first.id, input="x"
            )
    assert len(kept.truth()) == 3 and await stored(kept, ResponseChain.objects.count) == 0


async def test_every_answer_has_the_published_shape(kept: Bench) -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, PICTURE]},
        {"role": "assistant", "content": "two"},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
        {"type": "custom_tool_call", "call_id": "d", "name": "send", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "y"},
        {"type": "reasoning", "encrypted_content": "theirs"},
        {"role": "user", "content": "one two three"},
    ]  # fmt: skip
    name = await begun(kept, *items)
    answer = (await ask(kept, "four", conversation=name, store=False)).json
    assert (answer["store"], answer["conversation"]) == (False, {"id": name})
    page = (await on(kept, f"/{name}/items", query="order=asc")).json
    matches(ConversationItemList, page)
    assert [item["type"] for item in page["data"]][:9] == [item.get("type", "message") for item in items]
    assert page["data"][-1] == answer["output"][0] and len(page["data"]) == 11
    one = (await on(kept, f"/{name}/items/{page['data'][3]['id']}")).json
    matches(ConversationItem, one)
    assert one == page["data"][3]
    rest = (await on(kept, f"/{name}/items", query=f"limit=2&after={page['data'][3]['id']}")).json
    assert [item["id"] for item in rest["data"]] == [page["data"][2]["id"], page["data"][1]["id"]] and rest["has_more"]
    assert (await on(kept, f"/{name}/items", query=f"order=asc&after={page['last_id']}")).json == {
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }  # fmt: skip
    for query in ("limit=0", "limit=101", "order=up"):
        assert (await on(kept, f"/{name}/items", query=query)).status == 400
    for after in ("msg_no", f"msg_{HEX}00", "%00"):
        assert error(await on(kept, f"/{name}/items", query=f"after={after}")) == (404, "item_not_found", "after")
    assert (await kept.call("/api/v1/responses/" + answer["id"])).status == 404  # store was false
    deleted = (await on(kept, f"/{name}", method="DELETE")).json
    matches(ConversationDeletedResource, deleted)


async def test_what_is_wrong_is_named_and_nothing_of_it_is_kept(kept: Bench, settings: LazySettings) -> None:
    name = await begun(kept, user("one"))
    (first,) = (await on(kept, f"/{name}/items")).json["data"]
    wrong: list[tuple[str, Any, str]] = [
        ("", {"metadata": {"a": 1}}, "metadata.a"),
        ("", {"metadata": dict.fromkeys(map(str, range(17)), "")}, "metadata"),
        ("", {"metadata": {"a": "x" * 513}}, "metadata.a"),
        ("", {"items": [user("x")] * 21}, "items"),
        ("", {"items": {}}, "items"),
        (f"/{name}", {}, "metadata"),
        (f"/{name}/items", {}, "items"),
        (f"/{name}/items", {"items": []}, "items"),
        (f"/{name}/items", {"items": [user("x"), {"role": "nobody", "content": "x"}]}, "items[1].role"),
        (f"/{name}/items", {"items": [7]}, "items[0]"),
        ("", {"items": [{"type": "item_reference", "id": first["id"]}]}, "items[0]"),
        (f"/{name}/items", {"items": [{"type": "item_reference", "id": f"msg_{HEX}00"}]}, "items[0]"),
        (f"/{name}/items", {"items": [user("x"), user("y") | {"id": first["id"]}]}, "items"),
    ]
    for path, body, param in wrong:
        call = await on(kept, path, body)
        assert (call.status, call.json["error"]["param"]) == (400, param), body
    again = await ask(kept, [first], conversation=name)
    assert error(again) == (400, "item_already_in_conversation", "input")
    assert error(await ask(kept, [], conversation=name))[::2] == (400, "input")
    assert error(await ask(kept, None, conversation=await begun(kept)))[::2] == (400, "input")
    for odd in (7, {}, {"id": 7}):
        assert error(await ask(kept, conversation=odd))[::2] == (400, "conversation")
    settings.RESPONSES_MAX_BYTES = 60
    for path in ("", f"/{name}/items"):
        assert error(await on(kept, path, {"items": [user("x" * 99)]})) == (413, "request_too_large", "items")
    for store in (None, False):
        large = await ask(kept, "x" * 99, conversation=name, store=store)
        assert error(large) == (413, "request_too_large", "store")
    assert await said(kept, name) == ["user: one"] and not kept.truth()
    for odd in ("conv_%00", "conv_x", "a" * 300):
        for path in (f"/{odd}", f"/{odd}/items", f"/{odd}/items/{first['id']}"):
            assert (await on(kept, path)).status == 404
    assert (await on(kept)).status == 405 and (await on(kept, f"/{name}", method="PUT")).status == 405
    assert (await on(kept, "/conv_x", method="PUT")).status == 404


@pytest.mark.parametrize("odd", [[], ["msg_1"], {"id": "msg_1"}, 7, "", None])
async def test_an_id_that_is_none_is_made_anew(kept: Bench, odd: Any) -> None:
    name = await begun(kept, user("one") | {"id": odd}, {"type": "of tomorrow", "id": odd})
    assert (await on(kept, f"/{name}/items", {"items": [user("two") | {"id": odd}]})).status == 200
    assert (await ask(kept, [user("three") | {"id": odd}], conversation=name)).status == 200
    listed = (await on(kept, f"/{name}/items")).json["data"]
    assert len({item["id"] for item in listed}) == 5


async def test_an_empty_text_goes_on_from_what_was_said(kept: Bench) -> None:
    first = (await ask(kept, "one two three")).json
    name = await begun(kept, user("one two three"))
    for going_on in ({"previous_response_id": first["id"]}, {"conversation": name}):
        told = (await ask(kept, "", **going_on)).json
        assert told["usage"]["input_tokens"] >= first["usage"]["input_tokens"] > 0, going_on
    assert (await said(kept, name))[:2] == ["user: one two three", "user: "]


async def test_nobody_else_finds_it_and_cannot_tell_that_it_is_there(kept: Bench) -> None:
    name = await begun(kept, user("one"))
    (item,) = (await on(kept, f"/{name}/items")).json["data"]
    owner = kept.grant
    for other in (
        {"organization_id": "org_2", "project_id": "proj_3"},
        {"organization_id": "org_2"},
        {"project_id": "proj_2"},
        {"sandbox": True},
    ):
        kept.limit(**other)
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"metadata": {}}),
            ("DELETE", "", None),
            ("GET", "/items", None),
            ("POST", "/items", {"items": [user("x")]}),
            ("GET", f"/items/{item['id']}", None),
            ("DELETE", f"/items/{item['id']}", None),
        ):
            call = await on(kept, f"/{name}{path}", body, method=method)
            unknown = await on(kept, f"/conv_{HEX}{path}", body, method=method)
            assert call.status == unknown.status == 404, (method, path)
            assert call.body == unknown.body.replace(b"0" * 32, name[5:].encode())
        call, unknown = [await ask(kept, conversation=each) for each in (name, f"conv_{HEX}")]
        assert error(call) == (404, "conversation_not_found", "conversation")
        assert call.body == unknown.body.replace(b"0" * 32, name[5:].encode())
        kept.limit(**{field: getattr(owner, field) for field in other})
    assert await said(kept, name) == ["user: one"] and not kept.truth()
    rows = await stored(kept, lambda: [bytes(row) for row in ItemRow.objects.values_list("sealed", flat=True)])
    assert rows and not any(b"one" in row for row in rows)


@pytest.mark.parametrize(
    ("rules", "fields", "days"),
    [(DataRules(forbids_storage=True), {}, 30), (None, {"provider": {"zdr": True}}, 30), (None, {}, 0)],
)
async def test_who_may_not_store_has_no_conversations(
    kept: Bench, settings: LazySettings, rules: DataRules | None, fields: Any, days: int
) -> None:
    name = await begun(kept, user("one"))
    settings.RESPONSES_DAYS = days
    if rules is not None:
        kept.limit(policy=Policy(data=rules))
    for store in (None, False):
        refused = await ask(kept, conversation=name, store=store, **fields)
        assert error(refused) == (400, "storage_forbidden", "conversation")
    if not fields:
        for path, body, param in (
            ("", {}, "metadata"),
            ("", {"items": [user("x")]}, "items"),
            (f"/{name}", {"metadata": {}}, "metadata"),
            (f"/{name}/items", {"items": [user("x")]}, "items"),
        ):
            assert error(await on(kept, path, body)) == (400, "storage_forbidden", param)
    assert await said(kept, name) == ["user: one"] and not kept.truth()
    assert (await on(kept, f"/{name}", method="DELETE")).json["deleted"] is True


async def test_turns_at_once_are_all_there_each_as_a_whole(kept: Bench) -> None:
    name = await begun(kept, user("begin"))
    delay = {"chunk_delay_ms": 5}
    calls = await asyncio.gather(*(
        ask(kept, f"turn {number}", conversation=name, stream=bool(number % 2), sandbox=delay) for number in range(6)
    ))  # fmt: skip
    assert [call.status for call in calls] == [200] * 6
    turns = await said(kept, name)
    assert len(turns) == 13 and sorted(turns[1::2]) == [f"user: turn {number}" for number in range(6)]
    assert [turn.replace("user", "assistant") for turn in turns[1::2]] == turns[2::2]
    for call in calls:
        told = events(call)[-1]["response"] if call.body.startswith(b"event") else call.json
        listed = await kept.call(f"/api/v1/responses/{told['id']}/input_items", query="order=asc")
        roles = [item["content"][0]["text"] for item in listed.json["data"]]
        assert roles[0] == "begin" and roles[-1] == told["output_text"]
    assert (await ask(kept, "last", conversation=name)).json["usage"]["input_tokens"] > 13


async def test_an_answer_that_fails_or_that_nobody_waits_for_adds_nothing_and_one_that_is_cut_does(kept: Bench) -> None:
    name = await begun(kept, user("one"))
    broken = events(await ask(kept, model="sandbox-fault-cut-2", stream=True, conversation=name))[-1]
    assert (broken["type"], broken["response"]["conversation"]) == ("response.failed", {"id": name})
    seen = await kept.call(f"/api/v1/responses/{broken['response']['id']}")
    assert seen.json == broken["response"]
    refused = await ask(kept, "x", conversation=name, model="sandbox-nothing")
    assert refused.status == 404
    slow = {"model": "sandbox-echo", "input": "one two", "stream": True, "conversation": name}
    left = kept.start("/api/v1/responses", {**slow, "sandbox": {"chunk_delay_ms": 200}})
    await left.until(lambda call: b"output_text.delta" in call.body)
    left.leave()
    assert left.task is not None
    await left.task
    assert kept.record(left).outcome is Outcome.CANCELLED and await said(kept, name) == ["user: one"]
    cut = (await ask(kept, "one two three", conversation=name, max_output_tokens=1)).json
    assert cut["status"] == "incomplete" and (await said(kept, name))[1:] == ["user: one two three", "assistant: one "]


class Patient(ScriptedUpstream):
    """Answers when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.came, self.may_answer = asyncio.Event(), asyncio.Event()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.came.set()
        await self.may_answer.wait()
        return await super()._answer_one(reader, writer)


async def test_a_conversation_that_goes_while_it_is_answered_costs_nobody_the_answer(kept: Bench) -> None:
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    delta = {"index": 0, "delta": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    for stream in (True, False):
        name = await begun(kept, user("one"))
        body = {"model": PUBLIC_MODEL, "input": "two", "conversation": name, "stream": stream}
        async with Patient() as upstream:
            upstream.offer(kept, "openai")
            streamed = sse({**chunk, "choices": [delta], "usage": usage}, "[DONE]")
            upstream.answer(*(streamed if stream else [WHOLE]))
            call = kept.start("/api/v1/responses", body)
            await upstream.came.wait()
            assert (await on(kept, f"/{name}", method="DELETE")).status == 200
            upstream.may_answer.set()
            assert call.task is not None
            await call.task
        told = events(call)[-1]["response"] if stream else call.json
        assert (told["status"], told["store"], told["conversation"]) == ("completed", False, None)
        assert kept.record(call).cost_nanos > 0 and await stored(kept, StoredResponse.objects.count) == 0


async def test_a_response_of_a_conversation_is_gone_on_from_beside_it(kept: Bench) -> None:
    name = await begun(kept, user("begin"))
    first = (await ask(kept, "one", conversation=name)).json
    await on(kept, f"/{name}/items", {"items": [user("later")]})
    branch = (await ask(kept, "two", previous_response_id=first["id"])).json
    assert "conversation" not in branch
    listed = await kept.call(f"/api/v1/responses/{branch['id']}/input_items", query="order=asc")
    assert [item["content"][0]["text"] for item in listed.json["data"]] == ["begin", "one", "one", "two"]
    assert await said(kept, name) == ["user: begin", "user: one", "assistant: one", "user: later"]
    items = (await on(kept, f"/{name}/items", query="order=asc")).json["data"]
    named = {"type": "item_reference", "id": first["output"][0]["id"]}
    assert (await ask(kept, [named, user("x")])).status == 200
    assert error(await ask(kept, [named], conversation=name))[1] == "item_already_in_conversation"
    other = await begun(kept, named)
    assert await said(kept, other) == ["assistant: one"]
    await on(kept, f"/{name}/items/{items[0]['id']}", method="DELETE")
    assert error(await ask(kept, "three", previous_response_id=first["id"]))[1] == "previous_response_not_found"
    assert (await ask(kept, "three", conversation=name)).status == 200


async def test_the_route_and_what_vendors_want_back_stay_with_it(kept: Bench, upstream: ScriptedUpstream) -> None:
    target = upstream.offer(kept, "openai")
    call = {"id": "c1", "index": 0, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    signed = {"google": {"thought_signature": "seal"}}
    delta = {"reasoning_details": [SIGNED], "tool_calls": [{**call, "extra_content": signed}]}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    ended = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    pieces = ({**chunk, "choices": [{"index": 0, "delta": delta}]}, {**chunk, "choices": [ended], "usage": usage})
    upstream.answer(*sse(*pieces, "[DONE]"))
    name = await begun(kept)
    for store, given in ((False, "weather?"), (None, None)):
        given = given or [{"type": "function_call_output", "call_id": "c1", "output": "sunny"}]
        told = await ask(kept, given, PUBLIC_MODEL, tools=[WEATHER], stream=True, conversation=name, store=store)
        assert b"proof" not in told.body and b"encrypted_content" not in told.body
    sent = upstream.requests[-1].json["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    taken = await kept.runtime.stored.conversations.taken(owner_of(kept.grant), name)
    assert taken is not None and taken.route == (target.provider, target.upstream_model)
    assert [item["type"] for item in taken.input][:3] == ["message", "reasoning", "reasoning"]
    listed = await on(kept, f"/{name}/items")
    assert b"proof" not in listed.body and b"seal" not in listed.body
    assert (await stored(kept, StoredResponse.objects.count)) == 1


async def test_what_is_added_is_what_left(kept: Bench, upstream: ScriptedUpstream) -> None:
    kept.limit(policy=policy(personal("email", direction="input")))
    upstream.offer(kept, "openai")
    upstream.answer(WHOLE)
    name = await begun(kept, user(f"from {MAIL}"))
    await ask(kept, f"to {MAIL}", PUBLIC_MODEL, conversation=name)
    assert await said(kept, name) == [f"user: from {MAIL}", "user: to [EMAIL_1]", "assistant: yes"]
    await ask(kept, None, PUBLIC_MODEL, conversation=name)
    assert b"example.com" not in orjson.dumps(upstream.requests[-1].json)
    assert len(await said(kept, name)) == 4  # nothing of what was there before is added once more


async def test_a_repeated_request_is_added_once(kept: Bench) -> None:
    name = await begun(kept)
    headers = {"idempotency-key": "one"}
    first, again = [await ask(kept, conversation=name, headers=headers) for _ in range(2)]
    assert first.body == again.body and again.headers["x-crun-idempotent-replay"] == "true"
    assert await said(kept, name) == ["user: one two three", "assistant: one two three"]
    hits = [await ask(kept, "x", conversation=await begun(kept), headers={"x-crun-cache": "on"}) for _ in range(2)]
    assert [call.headers["x-crun-cache-status"] for call in hits] == ["MISS", "HIT"]
    other = hits[1].json["conversation"]["id"]
    assert other != hits[0].json["conversation"]["id"]
    assert await said(kept, other) == ["user: x", "assistant: x"]


async def test_a_conversation_that_is_too_long_is_refused_before_anybody_is_asked(
    kept: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await begun(kept, user("one"), user("two"))
    monkeypatch.setattr("apps.responses.conversations.MAX_ITEMS", 1)
    assert error(await ask(kept, conversation=name)) == (400, None, "conversation")
    assert error(await on(kept, f"/{name}/items", {"items": [user("x")]})) == (400, None, "items")
    assert not kept.truth()
    monkeypatch.undo()
    for _ in range(2):
        assert (await on(kept, f"/{name}/items", {"items": [user("x" * 1_100_000)]})).status == 200
    assert (await ask(kept, conversation=name)).status == 413  # as if it came with all that text
    assert not kept.truth()


async def test_what_is_taken_along_is_held_for(kept: Bench) -> None:
    name = await begun(kept, user("word " * 2_000))
    kept.limit(key_limits=Limits(tokens_per_minute=1_500))
    fields: Any = {"max_output_tokens": 10}
    assert (await ask(kept, **fields)).status == 200
    assert error(await ask(kept, conversation=name, **fields))[:2] == (429, "request_larger_than_rate_limit")
    assert len(await said(kept, name)) == 1 and len(kept.truth()) == 1


async def test_an_upstream_of_responses_gets_all_of_it_and_nothing_of_our_ids(
    kept: Bench, upstream: ScriptedUpstream
) -> None:
    upstream.offer(kept, "openai-responses")
    thought = {"type": "reasoning", "id": "rs_theirs", "summary": [], "encrypted_content": "sealed"}
    answer = {
        "type": "message", "id": "msg_theirs", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "yes", "annotations": []}],
    }  # fmt: skip
    usage = {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 4,
    }  # fmt: skip
    whole = {
        "id": "resp_theirs", "object": "response", "created_at": 1, "status": "completed", "model": "m",
        "output": [thought, answer], "usage": usage, "tools": [], "tool_choice": "auto", "parallel_tool_calls": True,
    }  # fmt: skip
    upstream.answer(orjson.dumps(whole))
    name = await begun(kept, user("one"))
    for given in ("two", "three"):
        told = (await ask(kept, given, PUBLIC_MODEL, conversation=name)).json
        assert (told["output_text"], told["conversation"]) == ("yes", {"id": name})
    sent = upstream.requests[-1]
    assert [item.get("role") or item["type"] for item in sent.json["input"]] == [
        "user", "user", "reasoning", "assistant", "user",
    ]  # fmt: skip
    assert sent.json["input"][2]["encrypted_content"] == "sealed" and "conversation" not in sent.json
    assert b"theirs" not in sent.body and name.encode() not in sent.body
    assert (await said(kept, name))[1:4] == ["user: two", "reasoning", "assistant: yes"]
