"""A stream on its way through: our names, true counts, honest endings."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.dialects.chat_stream import ChatStream
from apps.usage.contracts import TokenCounts

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def chunk(**changes: Any) -> bytes:
    content = {
        "id": "chatcmpl-theirs",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "gpt-x-2024",
        "system_fingerprint": "fp_secret",
        "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
    }
    return b"data: " + orjson.dumps({**content, **changes}) + b"\n\n"


FINISH = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
LAST = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"


def new_stream(choices: int = 1) -> ChatStream:
    return ChatStream(completion_id="chatcmpl-ours", model="bench-model", choices=choices, token_bound=1_000)


def run(*received: bytes) -> tuple[ChatStream, bytes]:
    stream = new_stream()
    sent = b"".join(stream.feed(piece) for piece in received)
    return stream, sent + stream.end()


def parsed(sent: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line[6:]) for line in sent.split(b"\n\n") if line]


def test_the_upstreams_names_become_ours_and_the_text_stays() -> None:
    _, sent = run(chunk(), FINISH, LAST, DONE)
    for event in parsed(sent):
        assert (event["id"], event["model"], event["system_fingerprint"]) == ("chatcmpl-ours", "bench-model", None)
    assert b"theirs" not in sent and b"gpt-x" not in sent and b"fp_secret" not in sent
    assert parsed(sent)[0]["choices"][0]["delta"] == {"content": "Hi"}


def test_text_that_looks_like_the_upstreams_identity_is_not_touched() -> None:
    text = '"model":"gpt-x-2024" "id":"chatcmpl-theirs"'
    _, sent = run(chunk(choices=[{"index": 0, "delta": {"content": text}}]), FINISH, DONE)
    assert parsed(sent)[0]["choices"][0]["delta"]["content"] == text


def test_an_upstream_that_changes_its_names_midway_does_not_leak_them() -> None:
    _, sent = run(chunk(), chunk(id="chatcmpl-other", model="gpt-y"), FINISH, DONE)
    assert b"other" not in sent and b"gpt-y" not in sent


def test_names_behind_the_choices_do_not_leak_and_other_ids_are_not_touched() -> None:
    def called(place: int) -> dict[str, Any]:
        call = {"index": place, "id": f"call_{place}", "type": "function", "function": {"name": "f", "arguments": ""}}
        choices = [{"index": 0, "delta": {"tool_calls": [call]}}]
        return {"choices": choices, "id": "chatcmpl-theirs", "model": "gpt-x-2024"}

    late = [b"data: " + orjson.dumps({**called(place), "system_fingerprint": "fp_late"}) + b"\n\n" for place in (0, 1)]
    spaced = b"data: " + orjson.dumps(called(2)).replace(b'":"', b'" : "') + b"\n\n"
    _, sent = run(late[0], chunk(), chunk(system_fingerprint="fp_new"), late[1], spaced, FINISH, DONE)
    assert b"theirs" not in sent and b"gpt-x" not in sent and b"fp_" not in sent
    for place, event in enumerate((parsed(sent)[0], parsed(sent)[3], parsed(sent)[4])):
        assert event["choices"][0]["delta"]["tool_calls"][0]["id"] == f"call_{place}"
        assert (event["id"], event["model"]) == ("chatcmpl-ours", "bench-model")


@pytest.mark.parametrize(
    "delta",
    [
        {"content": 'plain text, "quoted" and \\ \n'},
        {"content": "é🙂"},
        {"content": ""},
        {"content": "x", "role": "assistant"},
        {"reasoning_content": "x"},
    ],
)
def test_the_short_way_for_plain_chunks_gives_what_the_long_way_gives(delta: dict[str, Any]) -> None:
    one = chunk(choices=[{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}], usage=None)
    stream, apart = run(chunk(), one, one, FINISH, DONE)
    at_once, together = run(b"".join([chunk(), one, one, FINISH, DONE]))
    assert (apart, stream.output_count) == (together, at_once.output_count)
    assert parsed(apart)[1]["choices"][0]["delta"] == delta


def test_usage_is_taken_out_and_comes_back_once_at_the_end() -> None:
    stream, sent = run(chunk(), chunk(usage=USAGE), FINISH, LAST, DONE)
    assert stream.tokens == TokenCounts(input=5, output=2)
    assert all("usage" not in event or event["usage"] is None for event in parsed(sent))
    closing = stream.closing_events({"prompt_tokens": 5})
    assert closing.endswith(b"\n\ndata: [DONE]\n\n")
    assert orjson.loads(closing.split(b"\n\n")[0][6:])["choices"] == []


def test_the_last_usage_counts_because_vendors_repeat_it() -> None:
    stream, _ = run(chunk(usage={**USAGE, "completion_tokens": 1}), FINISH, LAST, DONE)
    assert stream.tokens == TokenCounts(input=5, output=2)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1.0, "completion_tokens": 2},
        {"prompt_tokens": "1", "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"completion_tokens": 2},
        {"prompt_tokens": 1, "completion_tokens": 10**9},
        {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 5}},
        {"prompt_tokens": 1, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 3}},
        {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": 7},
        [],
        "many",
    ],
)
def test_usage_that_cannot_be_billed_counts_as_none(usage: Any) -> None:
    stream, _ = run(chunk(), FINISH, chunk(choices=[], usage=usage), DONE)
    assert stream.tokens is None
    assert stream.output_count == 1


def test_zero_usage_is_usage() -> None:
    stream, _ = run(chunk(), FINISH, chunk(choices=[], usage={"prompt_tokens": 0, "completion_tokens": 0}), DONE)
    assert stream.tokens == TokenCounts()


def test_a_stream_that_just_ends_is_an_error_and_nothing_looks_like_an_end() -> None:
    stream = new_stream()
    stream.feed(chunk())
    stream.end()
    assert stream.failure is not None
    event = stream.failure.stream_event()
    assert orjson.loads(event[6:])["error"]["type"] == "upstream_error"
    assert b"[DONE]" not in event


def test_a_whole_answer_without_done_is_whole() -> None:
    stream, _ = run(chunk(), FINISH, LAST)
    assert stream.finish_reason == "stop"


def test_an_answer_is_not_whole_before_all_its_choices_are() -> None:
    stream = new_stream(choices=2)
    stream.feed(chunk() + FINISH)
    stream.end()
    assert stream.failure is not None
    stream = new_stream(choices=2)
    stream.feed(FINISH + chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}]))
    stream.end()
    assert stream.failure is None


def test_fields_that_tell_who_answered_do_not_leave() -> None:
    _, sent = run(chunk(provider="SecretVendor", x_groq={"id": "req_1"}), chunk(), FINISH, DONE)
    assert b"SecretVendor" not in sent and b"x_groq" not in sent


def test_a_last_event_without_its_empty_line_still_counts() -> None:
    stream, _ = run(chunk(), FINISH, LAST[:-2])
    assert stream.tokens == TokenCounts(input=5, output=2)


def test_garbage_between_good_events_is_skipped_and_counted() -> None:
    stream, sent = run(chunk(), b"data: {broken\n\n", b"data: 5\n\n", b"data: \xff\n\n", FINISH, DONE)
    assert stream.skipped_events == 3
    assert len(parsed(sent)) == 2


def test_nothing_after_done_is_sent() -> None:
    _, sent = run(chunk(), FINISH, DONE, chunk(choices=[{"index": 0, "delta": {"content": "late"}}]))
    assert b"late" not in sent


def test_comments_are_not_relayed_as_data() -> None:
    _, sent = run(b": keep-alive\n\n", chunk(), b"\n\n: again\n\n", FINISH, DONE)
    assert len(parsed(sent)) == 2


def test_an_error_event_ends_the_answer_without_the_upstreams_words() -> None:
    stream = new_stream()
    error = b'data: {"error": {"message": "host 10.0.0.7 out of memory, key sk-abc"}}\n\n'
    sent = stream.feed(chunk() + error + chunk())
    assert len(parsed(sent)) == stream.output_count == 1  # what came before the error in the same read is not lost
    assert stream.failure is not None
    assert "10.0.0.7" not in stream.failure.message


@pytest.mark.parametrize("usage", ["", ',"usage":{"prompt_tokens":5,"completion_tokens":1}'])
def test_half_an_emoji_in_an_event_is_relayed_as_it_came(usage: str) -> None:
    half = 'data: {"id":"a","choices":[{"index":0,"delta":{"content":"\\ud83d"}}]%s}\n\n' % usage  # noqa: UP031 - braces
    stream, sent = run(half.encode(), FINISH, DONE)
    assert b"\\ud83d" in sent
    assert stream.failure is None


@pytest.mark.parametrize("field", ["content", "tool_calls", "reasoning_content", "reasoning", "refusal"])
def test_every_kind_of_output_counts_and_empty_pieces_do_not(field: str) -> None:
    full = chunk(choices=[{"index": 0, "delta": {field: [{"index": 0}] if field == "tool_calls" else "x"}}])
    empty = chunk(choices=[{"index": 0, "delta": {field: [] if field == "tool_calls" else ""}}])
    stream, _ = run(empty, full, full, empty, FINISH, DONE)
    assert stream.output_count == 2


def test_a_piece_counts_its_words_because_some_vendors_send_many_tokens_at_once() -> None:
    many = chunk(choices=[{"index": 0, "delta": {"content": "one two  three\nfour "}, "finish_reason": None}])
    stream, _ = run(chunk(), many, many, chunk(choices=[{"index": [0], "delta": {"content": "héé llo"}}]), FINISH, DONE)
    assert stream.output_count == 1 + 4 + 4 + 2


@given(st.data())
def test_any_split_of_the_bytes_sends_the_same(data: st.DataObject) -> None:
    whole = b"".join([chunk(), chunk(choices=[{"index": 0, "delta": {"content": "é🙂"}}]), FINISH, LAST, DONE])
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)))))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    stream, sent = run(*pieces)
    assert (sent, stream.tokens, stream.output_count) == (run(whole)[1], TokenCounts(input=5, output=2), 2)


def test_an_empty_usage_takes_back_nothing_that_was_told() -> None:
    stream, _ = run(chunk(), FINISH, LAST, chunk(choices=[], usage={}), DONE)
    assert stream.tokens == TokenCounts(input=5, output=2) and stream.told.violation == ""
    stream, _ = run(chunk(), FINISH, chunk(choices=[], usage={}), DONE)
    assert stream.tokens is None and stream.told.violation


def test_a_stream_is_finished_when_all_of_its_choices_are() -> None:
    stream = new_stream(choices=2)
    for index in (0, 1):
        stream.feed(chunk(choices=[{"index": index, "delta": {"content": "Hi"}}], usage=USAGE))
        assert not stream.is_finished
        stream.feed(chunk(choices=[{"index": index, "delta": {}, "finish_reason": "stop"}], usage=USAGE))
    assert stream.is_finished


@pytest.mark.parametrize(
    ("delta", "count"),
    [
        ({"function_call": {"name": "f", "arguments": "{}"}}, 1),
        ({"reasoning": "two words", "reasoning_content": "two words"}, 2),
        ({"reasoning": "two words", "reasoning_content": "and three more"}, 5),
        ({"reasoning": "", "reasoning_content": ""}, 0),
    ],
)
def test_all_output_counts_and_the_same_thought_counts_once(delta: dict[str, Any], count: int) -> None:
    stream, _ = run(chunk(choices=[{"index": 0, "delta": delta}]), FINISH, DONE)
    assert stream.output_count == count


def test_an_event_in_several_lines_leaves_in_one() -> None:
    pretty = orjson.dumps(orjson.loads(chunk()[6:]), option=orjson.OPT_INDENT_2).replace(b"\n", b"\ndata: ")
    _, sent = run(b"data: " + pretty + b"\n\n", FINISH, DONE)
    assert sent.count(b"\n") == 4 and parsed(sent)[0]["choices"][0]["delta"] == {"content": "Hi"}


def test_only_whole_pieces_like_those_before_are_passed_on() -> None:
    stream = ChatStream(completion_id="ours", model="m", choices=1, token_bound=1_000)
    head = b'data: {"id":"a","model":"theirs","choices":'
    piece = head + b'[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}\n\n'
    assert stream.pass_on(piece) is None  # what a stream's chunks begin with is not known yet
    ours = stream.feed(piece)
    assert stream.pass_on(piece) == ours and stream.pass_on(piece + piece) == ours + ours
    for other in (
        b"", piece[:-1], piece + b"d", piece + b"data: [DONE]\n\n", b"\n" + piece, piece.replace(b"one", b""),
        piece.replace(b"one", b"\xff"), piece.replace(b"one", b"\\ud83d"), piece.replace(b"one", b"\\x"),
        piece.replace(b'"one"', b'"one","x":1'), piece.replace(b"theirs", b"others"), piece.replace(b'"one"', b'"'),
        piece.replace(b"one", b"\n"), piece.replace(b"one", b'one","role":"x'), piece.replace(b'"one"', b"1"),
    ):  # fmt: skip
        assert stream.pass_on(other) is None
    assert stream.output_count == 4
    assert stream.feed(b": a comment, and in the same event:\n") == b""
    assert stream.pass_on(piece) is None
    assert stream.feed(piece) == ours and stream.output_count == 5


def test_pieces_are_passed_on_under_the_head_that_their_stream_has_now() -> None:
    stream = ChatStream(completion_id="ours", model="m", choices=1, token_bound=1_000)
    first = (
        b'data: {"id":"a","model":"theirs","choices":[{"index":0,"delta":{"content":"a b"},"finish_reason":null}]}\n\n'
    )
    other = first.replace(b'"id":"a"', b'"created":7,"id":"a"')
    for piece, said in ((first, b""), (other, b'"created":7,')) * 2:
        learned = stream.feed(piece)
        assert said in learned and b"theirs" not in learned
        assert stream.pass_on(first if piece is other else other) is None
        for text in (b"a b", b"c \\n d", "e é".encode(), b'\\"f\\"'):
            assert stream.pass_on(piece.replace(b"a b", text)) == learned.replace(b"a b", text)
        assert stream.pass_on(piece.replace(b'"index":0', b'"index":1')) == learned.replace(b'"index":0', b'"index":1')
        assert stream.pass_on(piece) == learned
    assert stream.output_count == 4 * (2 + 2 + 2 + 2 + 1 + 2 + 2)


def test_usage_that_comes_with_each_piece_is_taken_out_of_all() -> None:
    told = [
        {**USAGE, "completion_tokens": count, "total_tokens": 5 + count, "prompt_tokens_details": {"cached_tokens": 1}}
        for count in (1, 2)
    ]
    piece = chunk(usage=told[0])
    stream = new_stream()
    sent = b"".join(map(stream.feed, (piece, chunk(usage=told[1]), piece, chunk(usage=told[1]))))
    assert stream.tokens == TokenCounts(4, cache_read=1, output=2)
    assert stream.pass_on(chunk(usage=told[0])) is not None and stream.tokens == TokenCounts(4, cache_read=1, output=1)
    assert b"usage" not in sent and sent == parsed_again(sent)
    for odd in ({}, {"a": {"b": {}}}):
        assert stream.pass_on(chunk(usage=odd)) is None
    assert stream.pass_on(piece.replace(b'"completion_tokens":1', b'"completion_tokens":')) is None
    assert stream.feed(chunk(usage={})) and stream.tokens == TokenCounts(4, cache_read=1, output=1)


def parsed_again(sent: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in parsed(sent))


def test_only_arguments_that_go_on_with_their_call_are_passed_on() -> None:
    def called(index: int | None, **call: Any) -> bytes:
        function = {"arguments": call.pop("arguments", "two words")}
        piece = {"index": index, **call, "function": {**call.pop("function", {}), **function}}
        return chunk(choices=[{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}])

    stream = new_stream()
    begun = called(0, id="a", function={"name": "f"}, arguments="")
    for event in (chunk(), begun):
        stream.feed(event)
    assert stream.pass_on(called(0)) is None
    assert stream.feed(called(0)) and stream.pass_on(called(0)) is not None
    assert stream.output_count == 4  # a piece of arguments counts once, whatever is in it
    for other in (begun, called(1), called(0, id="a")):
        assert stream.pass_on(other) is None
    stream.feed(called(0, id="b", function={"name": "g"}))  # a vendor with one index for all
    assert stream.pass_on(called(0)) is None
    (event,) = parsed(stream.feed(called(0)))
    assert event["choices"][0]["delta"]["tool_calls"][0]["index"] == 1
    assert stream.pass_on(called(0)) is None  # it needs to be put right


@pytest.mark.parametrize("left_out", [("id",), ("created", "object"), ("id", "object", "created", "model")])
def test_what_a_vendor_leaves_out_is_there_and_the_same_in_all_chunks(left_out: tuple[str, ...]) -> None:
    bare = {name: value for name, value in parsed(chunk())[0].items() if name not in left_out}
    said = b"data: " + orjson.dumps(bare) + b"\n\n"
    stream, sent = run(said, said, b'data: {"choices":null}\n\n', b"data: {}\n\n", FINISH)
    events = parsed(sent + stream.closing_events(USAGE).removesuffix(DONE))
    assert len(events) == 4 and stream.output_count == 2
    for event in events:
        assert (event["id"], event["model"], event["object"]) == (
            "chatcmpl-ours", "bench-model", "chat.completion.chunk",
        )  # fmt: skip
        assert event["created"] > 0
    assert events[0] == events[1]
