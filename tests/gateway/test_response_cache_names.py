"""Names of cached answers, and answers put together of streams: what differs never meets, what is the same does."""

import copy
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.messages.request import parse_messages
from apps.gateway.response_cache.answers import is_whole, is_worth_keeping, usage_to_keep
from apps.gateway.response_cache.assembly import StreamAssembly, as_stream
from apps.gateway.response_cache.naming import NOT_OF_THE_ANSWER, name_of
from apps.keys.contracts import KeyGrant
from apps.policies.contracts import Policy
from apps.usage.contracts import Outcome, TokenCounts
from tests.factories import closed, offered, opened, snapshot

RING = {"k1": b"1" * 32}
CATALOG = snapshot(offered(id="base"), offered(id="other"))
GRANT = KeyGrant(
    key_id="key_1", organization_id="org_1", organization_slug="demo", project_id="proj_1", project_slug="default",
    name="Test", digest="", created_at=0.0, expires_at=None, revoked_at=None,
)  # fmt: skip
PLAIN = {"model": "base", "messages": [{"role": "user", "content": "hello"}]}
ANSWER_FIELDS = st.sampled_from((
    "temperature", "top_p", "n", "max_tokens", "max_completion_tokens", "seed", "stop", "tools", "tool_choice",
    "response_format", "logprobs", "service_tier", "provider", "models", "reasoning_effort", "vendor_field",
))  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abcde", max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BODIES = st.builds(
    lambda extra, text: {**PLAIN, **extra, "messages": [{"role": "user", "content": text}]},
    st.dictionaries(ANSWER_FIELDS, JSON, max_size=5),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)


def name(body: dict[str, Any], *, path: str = "/api/v1/chat/completions", **grant: Any) -> str:
    asked = ChatRequest(model=body["model"], stream=False, choices=1, body=PLAIN)
    asked.body = body  # also what no request may say
    return name_of(msgspec.structs.replace(GRANT, **grant), path, asked, CATALOG, ring=RING)


def same(one: Any, other: Any) -> bool:
    """Whether two bodies are the same JSON, whatever the order of their fields."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


@settings(max_examples=60)
@given(BODIES, BODIES)
def test_two_bodies_share_a_name_exactly_when_they_say_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (name(one) == name(other)) is same(one, other)


@settings(max_examples=60)
@given(BODIES, st.data())
def test_a_body_that_differs_in_one_field_has_another_name(body: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(body)
    field = data.draw(ANSWER_FIELDS)
    changed[field] = data.draw(JSON)
    assert (name(changed) == name(body)) is (field in body and same(changed, body))
    del changed[field]
    assert (name(changed) == name(body)) is (field not in body)


@settings(max_examples=60)
@given(BODIES, st.randoms(use_true_random=False), st.dictionaries(st.sampled_from(sorted(NOT_OF_THE_ANSWER)), JSON))
def test_order_white_space_and_what_is_not_of_the_answer_do_not_matter(
    body: dict[str, Any], random: Any, beside: dict[str, Any]
) -> None:
    fields = list(body.items())
    random.shuffle(fields)
    written = orjson.dumps(dict(fields), option=orjson.OPT_INDENT_2)
    assert name({**orjson.loads(written), **beside}) == name(body)


def test_what_a_dialect_reads_beside_the_body_counts() -> None:
    plain = {"model": "base", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

    def named(betas: tuple[str, ...] = (), **more: Any) -> str:
        asked = parse_messages(orjson.dumps({**plain, **more}), betas)
        return name_of(GRANT, "/api/v1/messages", asked, CATALOG, ring=RING)

    names = {named(), named(("context-1m",)), named(top_k=5), named(system="be kind"), named(max_tokens=10)}
    assert len(names) == 5
    assert named(stream=True, metadata={"user_id": "somebody"}) == named()


def test_another_tenant_endpoint_key_ring_or_decision_is_another_name() -> None:
    found = {
        name(PLAIN),
        name(PLAIN, organization_id="org_2"),
        name(PLAIN, project_id="proj_2"),
        name(PLAIN, organization_id="org_1p", project_id="roj_1"),
        name(PLAIN, sandbox=True),
        name(PLAIN, policy=Policy()),
        name(PLAIN, path="/api/v1/completions"),
    }
    assert len(found) == 7
    assert name(PLAIN, key_id="key_2", name="Other", digest="d") in found
    asked = ChatRequest(model="base", stream=False, choices=1, body=PLAIN)
    assert name_of(GRANT, "/api/v1/chat/completions", asked, CATALOG, ring={"k2": b"2" * 32}) not in found


# --- streams and whole answers ---------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CALLS = st.lists(
    st.fixed_dictionaries({
        "id": TEXT, "type": st.just("function"), "function": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}),
    }),
    min_size=1, max_size=3,
)  # fmt: skip
MESSAGES = st.one_of(
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT}, optional={"refusal": TEXT}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": st.none(), "tool_calls": CALLS}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT, "reasoning_content": TEXT}),
    st.fixed_dictionaries({
        "role": st.just("assistant"), "content": TEXT,
        "reasoning_details": st.lists(TEXT, max_size=3).map(lambda texts: [
            {"type": "reasoning.text", "text": text, "index": place} for place, text in enumerate(texts)
        ]),
    }),
)  # fmt: skip
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.lists(st.fixed_dictionaries({"token": TEXT}), max_size=3)})
CHOICES = st.lists(
    st.tuples(MESSAGES, LOGPROBS, st.sampled_from(("stop", "length", "tool_calls"))), min_size=1, max_size=3
)


def answer_of(choices: Any) -> dict[str, Any]:
    listed = [
        {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}
        for index, (message, logprobs, reason) in enumerate(choices)
    ]
    return {"object": "chat.completion", "created": 1, "choices": listed, "usage": {"prompt_tokens": 1}}


@given(CHOICES)
def test_an_answer_is_the_same_after_it_went_through_a_stream(choices: Any) -> None:
    answer = answer_of(choices)
    assembly = StreamAssembly()
    assembly.add(as_stream(answer))
    again = assembly.answer(len(choices))
    assert again is not None
    assert again["choices"] == answer["choices"]


def chunk(delta: Any, *, reason: str | None = None, **more: Any) -> bytes:
    told = {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **more}]}
    return b"data: " + orjson.dumps(told) + b"\n\n"


@pytest.mark.parametrize(
    "events",
    [
        [chunk({"content": "a"})],
        [chunk({"content": ["a part"]}), chunk({}, reason="stop")],
        [chunk({"audio": {"data": "x"}}), chunk({}, reason="stop")],
        [chunk({"annotations": [1]}), chunk({}, reason="stop")],
        [chunk({}, reason="stop"), chunk({"content": "more"})],
        [chunk({"content": "a"}, vendor="x"), chunk({}, reason="stop")],
        [chunk({"tool_calls": [{"id": "a"}]}), chunk({}, reason="stop")],
        [chunk({"tool_calls": [{"index": 1, "id": "a"}]}), chunk({}, reason="stop")],
        [chunk({"tool_calls": [{"index": 0, "id": "a"}, {"index": 0, "id": "b"}]}), chunk({}, reason="stop")],
        [chunk({"reasoning_details": [{"index": 0}, {"index": 0}]}), chunk({}, reason="stop")],
        [chunk({"reasoning_details": [{"index": {}}]}), chunk({}, reason="stop")],
        [chunk({"content": "a"}, logprobs={"content": "x"}), chunk({}, reason="stop")],
    ],
)
def test_what_cannot_be_put_together_without_a_doubt_is_not(events: list[bytes]) -> None:
    assembly = StreamAssembly()
    for event in events:
        assembly.add(event)
    assert assembly.answer(1) is None


def test_pieces_are_joined_as_clients_join_them() -> None:
    assembly = StreamAssembly()
    for event in (
        chunk({"role": "assistant", "content": ""}),
        chunk(
            {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk({}, reason="tool_calls", native_finish_reason="tool_use"),
    ):
        assembly.add(event)
    assert assembly.answer(2) is None
    found = assembly.answer(1)
    assert found is not None
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    assert found["choices"] == [
        {
            "index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [call]}, "logprobs": None,
            "finish_reason": "tool_calls", "native_finish_reason": "tool_use",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("reason", ["content_filter", None, "error", "pause"])
def test_an_answer_that_something_ended_is_not_whole(reason: str | None) -> None:
    message = {"role": "assistant", "content": "a"}
    good = {"message": message, "finish_reason": "stop"}
    assert is_whole({"choices": [good]})
    assert not is_whole({"choices": [good, {"message": message, "finish_reason": reason}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": Outcome.CANCELLED}, {"outcome": Outcome.FAILED, "http_status": 502}, {"estimated": True},
        {"review": "odd"}, {"overage_nanos": 1},
    ],
)  # fmt: skip
def test_a_doubtful_end_is_not_worth_keeping(changes: dict[str, Any]) -> None:
    assert is_worth_keeping(closed(opened()))
    assert not is_worth_keeping(closed(opened(), **changes))


@given(st.builds(TokenCounts, **dict.fromkeys(TokenCounts.__struct_fields__, st.integers(0, 9))))
def test_tokens_are_read_again_as_they_were_or_the_answer_is_not_kept(tokens: TokenCounts) -> None:
    usage = usage_to_keep(tokens)
    assert (usage is not None) is (tokens.cache_write_1h == 0)
