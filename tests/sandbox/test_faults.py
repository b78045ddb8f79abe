"""Each fault model, as its bytes arrive."""

import gzip
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crun.sandbox.faults import FAULTS, find_fault

Ask = Callable[..., Any]
ECHO = "one two three four five"


def usage_of(received: Any) -> list[Any]:
    return [chunk["usage"] for chunk in received.chunks if not chunk["choices"] and "usage" in chunk]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "retry_after"),
    [
        (400, "invalid_value", None),
        (403, "forbidden", None),
        (404, "model_not_found", None),
        (413, "request_too_large", None),
        (429, "rate_limit_exceeded", "2"),
        (500, None, None),
        (503, "overloaded", "1"),
        (529, None, None),
    ],
)
def test_a_status_fault_answers_with_its_status_in_openais_shape(
    ask: Ask, status: int, code: str | None, retry_after: str | None, streamed: bool
) -> None:
    received = ask(f"sandbox-fault-{status}", stream=streamed)
    assert received.status == status
    assert received.header("retry-after") == retry_after
    assert received.json["error"].keys() == {"message", "type", "param", "code"}
    assert received.json["error"]["code"] == code


def test_401_echoes_the_presented_key(ask: Ask) -> None:
    received = ask("sandbox-fault-401", headers={"authorization": "Bearer sk-canary-1"})
    assert received.status == 401
    assert "sk-canary-1" in received.json["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
def test_stall_never_sends_headers(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-stall", stream=streamed, limit_s=0.2)
    assert (received.raw, received.ending) == (b"", "open")


def test_stall_after_sends_its_chunks_and_then_nothing(stream: Ask) -> None:
    received = stream("sandbox-fault-stall-after-2", limit_s=0.5)
    assert (received.text, received.ending, received.is_whole) == ("one two ", "open", False)


def test_stall_after_stalls_in_the_middle_of_a_body(ask: Ask) -> None:
    received = ask("sandbox-fault-stall-after-2", limit_s=0.5)
    assert (received.ending, received.is_whole) == ("open", False)
    assert 0 < len(received.body) < int(received.header("content-length"))


@pytest.mark.parametrize(("kind", "ending"), [("cut", "fin"), ("reset", "rst")])
@pytest.mark.parametrize(("chunks", "text"), [(0, ""), (1, "one "), (3, "one two three "), (5, ECHO)])
def test_cut_and_reset_end_the_connection_after_their_chunks(
    stream: Ask, kind: str, ending: str, chunks: int, text: str
) -> None:
    received = stream(f"sandbox-fault-{kind}-{chunks}")
    assert (received.text, received.ending, received.is_whole) == (text, ending, False)
    assert b"[DONE]" not in received.raw
    assert not usage_of(received)


@pytest.mark.parametrize(("kind", "ending"), [("cut", "fin"), ("reset", "rst")])
def test_cut_and_reset_end_the_connection_in_the_middle_of_a_body(ask: Ask, kind: str, ending: str) -> None:
    received = ask(f"sandbox-fault-{kind}-1")
    assert (received.status, received.ending, received.is_whole) == (200, ending, False)
    assert 0 < len(received.body) < int(received.header("content-length"))


def test_a_stream_with_fewer_chunks_than_the_fault_counts_stays_whole(stream: Ask) -> None:
    received = stream("sandbox-fault-cut-6")
    assert (received.text, received.events[-1], received.is_whole) == (ECHO, b"[DONE]", True)


@pytest.mark.parametrize("streamed", [False, True])
def test_refuse_closes_before_any_byte(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-refuse", stream=streamed)
    assert (received.raw, received.ending) == (b"", "fin")


def test_garbage_is_one_broken_line_amid_good_ones(stream: Ask) -> None:
    received = stream("sandbox-fault-garbage")
    broken = [event for event in received.events if event.startswith(b'{"id": "chatcmpl-garbage"')]
    assert len(broken) == 1
    clean = received.body.replace(b"data: " + broken[0] + b"\n\n", b"")
    assert clean.count(b'"delta":{"content":"') == 5
    assert clean.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("streamed", [False, True])
def test_html_is_a_page_with_status_200(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-html", stream=streamed)
    assert (received.status, received.header("content-type")) == (200, "text/html; charset=utf-8")
    assert received.body.startswith(b"<!doctype html>")


@pytest.mark.parametrize("streamed", [False, True])
def test_bad_utf8_cannot_be_decoded(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-bad-utf8", stream=streamed)
    assert received.is_whole
    with pytest.raises(UnicodeDecodeError):
        received.body.decode()
    for word in ECHO.split():
        assert word.encode() in received.body


def test_no_done_lacks_only_done(stream: Ask) -> None:
    received = stream("sandbox-fault-no-done")
    assert (received.text, received.is_whole, len(usage_of(received))) == (ECHO, True, 1)
    assert b"[DONE]" not in received.raw


USAGE_LIES: dict[str, dict[str, Any]] = {
    "zero-usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "negative-usage": {"prompt_tokens": -6, "completion_tokens": -6, "total_tokens": -11},
    "float-usage": {"prompt_tokens": 5.5, "completion_tokens": 5.5, "total_tokens": 10.5},
    "string-usage": {"prompt_tokens": "5", "completion_tokens": "5", "total_tokens": "10"},
    "huge-usage": {"prompt_tokens": 5, "completion_tokens": 10**18, "total_tokens": 10},
    "cached-over-prompt": {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10},
}


@pytest.mark.parametrize("name", USAGE_LIES)
def test_a_usage_fault_lies_in_the_stream_and_in_the_whole_answer(ask: Ask, stream: Ask, name: str) -> None:
    for told in (usage_of(stream(f"sandbox-fault-{name}"))[-1], ask(f"sandbox-fault-{name}").json["usage"]):
        assert {key: told[key] for key in USAGE_LIES[name]} == USAGE_LIES[name]
        assert told["prompt_tokens_details"]["cached_tokens"] == (15 if name == "cached-over-prompt" else 0)


def test_no_usage_leaves_usage_out(ask: Ask, stream: Ask) -> None:
    assert usage_of(stream("sandbox-fault-no-usage")) == []
    assert "usage" not in ask("sandbox-fault-no-usage").json


def test_null_usage_says_null(ask: Ask, stream: Ask) -> None:
    assert usage_of(stream("sandbox-fault-null-usage")) == [None]
    assert ask("sandbox-fault-null-usage").json["usage"] is None


def test_usage_every_chunk_counts_up_to_the_true_usage(stream: Ask) -> None:
    received = stream("sandbox-fault-usage-every-chunk")
    told = [chunk["usage"]["completion_tokens"] for chunk in received.chunks if chunk["usage"]]
    assert told == [1, 2, 3, 4, 5, 5]
    assert received.text == ECHO


def test_usage_twice_tells_the_truth_second(stream: Ask) -> None:
    told = usage_of(stream("sandbox-fault-usage-twice"))
    assert [(usage["prompt_tokens"], usage["completion_tokens"]) for usage in told] == [(5, 0), (5, 5)]


def test_events_after_done_come_after_done(stream: Ask) -> None:
    events = stream("sandbox-fault-events-after-done").events
    assert (events[-3], events[-1]) == (b"[DONE]", b"[DONE]")
    assert b'"content":"late"' in events[-2]


@pytest.mark.parametrize(("chunks", "text"), [(0, ""), (2, "one two ")])
def test_error_event_ends_the_stream_with_an_error(stream: Ask, chunks: int, text: str) -> None:
    received = stream(f"sandbox-fault-error-event-{chunks}")
    assert (received.text, received.is_whole) == (text, True)
    assert received.chunks[-1].keys() == {"error"}
    assert b"[DONE]" not in received.raw


def test_error_event_is_an_error_body_with_status_200_when_not_streamed(ask: Ask) -> None:
    received = ask("sandbox-fault-error-event-2")
    assert (received.status, received.json["error"]["type"]) == (200, "server_error")


def test_short_body_is_shorter_than_announced(ask: Ask) -> None:
    received = ask("sandbox-fault-short-body")
    assert (received.status, received.ending) == (200, "fin")
    assert int(received.header("content-length")) == len(received.body) + 100


def test_bad_json_is_whole_but_broken(ask: Ask) -> None:
    received = ask("sandbox-fault-bad-json")
    assert (received.status, received.is_whole) == (200, True)
    with pytest.raises(ValueError, match="unexpected end"):
        _ = received.json


@pytest.mark.parametrize("streamed", [False, True])
def test_redirect_points_to_the_metadata_service(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-redirect", stream=streamed)
    assert received.status == 302
    assert received.header("location").startswith("http://169.254.169.254/")


def test_slow_headers_never_end(ask: Ask) -> None:
    received = ask("sandbox-fault-slow-headers", limit_s=1.2)
    assert received.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"x-slow-0: 1\r\n" in received.raw
    assert b"\r\n\r\n" not in received.raw
    assert received.ending == "open"


def blank(body: bytes) -> bytes:
    """The stream without what differs from one request to the next."""
    return re.sub(rb'chatcmpl-[0-9a-f]{24}|"created":\d+|sandbox-[a-z-]+', b"", body)


def test_torn_is_echo_in_slices_that_split_characters(stream: Ask) -> None:
    torn, echo = stream("sandbox-fault-torn", "grüße 🙂 bye"), stream("sandbox-echo", "grüße 🙂 bye")
    assert blank(torn.body) == blank(echo.body)
    assert {len(piece) for piece in torn.pieces} == {1, 2, 3}
    emoji = "🙂".encode()
    assert not any(emoji in piece for piece in torn.pieces)
    assert emoji in torn.body


def test_torn_crlf_splits_line_ends(stream: Ask) -> None:
    received = stream("sandbox-fault-torn-crlf")
    assert received.text == ECHO
    joints = [first[-1:] + second[:1] for first, second in zip(received.pieces, received.pieces[1:], strict=False)]
    assert b"\r\n" in joints


def test_crlf_separates_events_by_crlf(stream: Ask) -> None:
    received = stream("sandbox-fault-crlf")
    assert received.text == ECHO
    assert received.body.endswith(b"data: [DONE]\r\n\r\n")
    assert b"\n" not in received.body.replace(b"\r\n", b"")


def test_comments_stand_between_the_events(stream: Ask) -> None:
    received = stream("sandbox-fault-comments")
    assert received.text == ECHO
    assert received.body.count(b": keep-alive\n\n") == len(received.events)
    assert b"\n\n\n" in received.body


def test_big_line_is_ten_megabytes(ask: Ask, stream: Ask) -> None:
    received = stream("sandbox-fault-big-line")
    assert received.text == ECHO
    assert max(map(len, received.events)) > 10_000_000
    assert len(ask("sandbox-fault-big-line").json["padding"]) == 10_000_000


@pytest.mark.parametrize("streamed", [False, True])
def test_many_headers_are_many(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-many-headers", stream=streamed)
    assert sum(name.startswith("x-many-") for name, _ in received.headers) == 5_000
    assert received.is_whole


@pytest.mark.parametrize("streamed", [False, True])
def test_leaky_headers_are_a_vendors(ask: Ask, streamed: bool) -> None:
    names = {name for name, _ in ask("sandbox-fault-leaky-headers", stream=streamed).headers}
    assert names >= {
        "set-cookie",
        "server",
        "x-request-id",
        "openai-organization",
        "x-ratelimit-limit-tokens",
    }


def test_flaky_fails_then_succeeds_then_starts_over(ask: Ask) -> None:
    statuses = [ask("sandbox-fault-flaky-2").status for _ in range(6)]
    assert statuses == [503, 503, 200, 503, 503, 200]


def test_flaky_counts_per_user(ask: Ask) -> None:
    assert ask("sandbox-fault-flaky-1", user="ann").status == 503
    assert ask("sandbox-fault-flaky-1", user="bob").status == 503
    assert ask("sandbox-fault-flaky-1", user="ann").status == 200


@pytest.mark.parametrize("streamed", [False, True])
def test_gzip_is_a_bomb_of_bounded_size(ask: Ask, streamed: bool) -> None:
    received = ask("sandbox-fault-gzip", stream=streamed)
    assert received.header("content-encoding") == "gzip"
    assert received.is_whole
    assert len(received.body) < 1_000_000
    unpacked = gzip.decompress(received.body)
    assert 32 * 1024 * 1024 < len(unpacked) < 33 * 1024 * 1024
    assert b"five" in unpacked[-2_000:]


def test_an_http_1_0_client_gets_a_stream_without_chunked_encoding(sandbox: Any) -> None:
    body = b'{"model":"sandbox-fault-cut-9","stream":true,"messages":[{"role":"user","content":"a b"}]}'
    with socket.create_connection(("127.0.0.1", sandbox.port)) as connection:
        head = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
        connection.sendall(head + body)
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"transfer-encoding" not in raw
    assert raw.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("name", ["cut", "cut-", "cut--1", "cut-1.5", "cut-1234567", "cut-²", "html-3", "nothing"])
def test_a_name_that_is_no_fault_is_an_unknown_model(ask: Ask, name: str) -> None:
    assert find_fault(f"sandbox-fault-{name}") is None
    received = ask(f"sandbox-fault-{name}")
    assert (received.status, received.json["error"]["code"]) == (404, "model_not_found")


def test_the_documented_table_is_the_table_in_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    documented = re.findall(r"^\| `sandbox-fault-([a-z0-9-]+?)(?:-[KN])?` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(FAULTS)
