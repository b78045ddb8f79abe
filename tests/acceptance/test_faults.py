"""Every fault of an upstream through the gateway: what the client sees and what is recorded, asserted together."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from apps.core.ids import new_id
from crun.sandbox.faults import FAULTS
from crun.sandbox.truth import TruthEntry
from tests.acceptance.asking import Answer, caller, gather_limited
from tests.acceptance.installing import Installation
from tests.acceptance.records import Record, cost_usd, nanos, rollup_differences, settled_records
from tests.acceptance.upstream import API_KEY, FAULT, HOST, TruthUpstream, fault_model

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]

WORDS = "aa bb cc dd ee"  # 5 tokens of the sandbox, 14 bytes: 3 by our estimate
TOLD, ESTIMATED_INPUT = 5, 3
ANSWER_BYTES = 14


@dataclass(frozen=True)
class Expected:
    """What must come of one fault. Tokens are (prompt, completion) of the record."""

    status: int = 200
    code: str | None = None  # of the error, in the body or as the last event; None: the answer is whole
    outcome: str = "completed"
    tokens: tuple[int, int] = (TOLD, TOLD)
    estimated: bool = False
    text: str | None = None  # what the client got; None: not looked at


WHOLE = Expected(text=WORDS)
FAILED = Expected(502, "upstream_failed", "failed", (0, 0))
TIMEOUT = Expected(504, "upstream_timeout", "failed", (0, 0))
OVERLOADED = Expected(503, "upstream_overloaded", "failed", (0, 0))
MISCONFIGURED = Expected(502, "upstream_misconfigured", "failed", (0, 0))
UNAUTHORIZED = Expected(502, "upstream_unauthorized", "failed", (0, 0))
ESTIMATED_STREAM = Expected(tokens=(ESTIMATED_INPUT, 5), estimated=True, text=WORDS)
ESTIMATED_ANSWER = Expected(tokens=(ESTIMATED_INPUT, ANSWER_BYTES // 4), estimated=True, text=WORDS)
BROKEN_AFTER_3 = Expected(200, "upstream_failed", "failed", (ESTIMATED_INPUT, 3), estimated=True, text="aa bb cc ")
BROKEN_AFTER_1 = Expected(200, "upstream_failed", "failed", (ESTIMATED_INPUT, 1), estimated=True, text="aa ")
UNUSABLE_STREAM = Expected(200, "upstream_failed", "failed", (0, 0), text="")

BOTH: dict[str, Expected] = {
    "400": Expected(400, "invalid_value", "failed", (0, 0)),
    "401": UNAUTHORIZED,
    "403": UNAUTHORIZED,
    "404": MISCONFIGURED,
    "413": Expected(413, "request_too_large", "failed", (0, 0)),
    "429": OVERLOADED,
    "500": FAILED,
    "503": OVERLOADED,
    "529": OVERLOADED,
    "stall": TIMEOUT,
    "refuse": FAILED,
    "redirect": MISCONFIGURED,
    "slow-headers": TIMEOUT,
    "flaky-3": OVERLOADED,
    "many-headers": FAILED,
    "leaky-headers": WHOLE,
    "usage-twice": WHOLE,
    "zero-usage": Expected(tokens=(0, 0), text=WORDS),  # a statement, other than no usage at all: it is believed
}
STREAMED: dict[str, Expected] = {
    "stall-after-3": Expected(
        200, "upstream_timeout", "failed", (ESTIMATED_INPUT, 3), estimated=True, text="aa bb cc "
    ),
    "cut-3": BROKEN_AFTER_3,
    "reset-3": BROKEN_AFTER_3,
    "error-event-3": BROKEN_AFTER_3,
    "cut-0": UNUSABLE_STREAM,
    "html": UNUSABLE_STREAM,
    "gzip": UNUSABLE_STREAM,
    "big-line": BROKEN_AFTER_1,
    "garbage": WHOLE,
    "bad-utf8": WHOLE,
    "no-done": WHOLE,
    "usage-every-chunk": WHOLE,
    "events-after-done": WHOLE,
    "torn": WHOLE,
    "torn-crlf": WHOLE,
    "crlf": WHOLE,
    "comments": WHOLE,
    "short-body": WHOLE,
    "bad-json": WHOLE,
    **dict.fromkeys(
        ("no-usage", "negative-usage", "float-usage", "string-usage", "null-usage", "huge-usage", "cached-over-prompt"),
        ESTIMATED_STREAM,
    ),
}
NOT_STREAMED: dict[str, Expected] = {
    "stall-after-3": TIMEOUT,
    **dict.fromkeys(
        ("cut-3", "reset-3", "error-event-3", "cut-0", "html", "gzip", "short-body", "bad-json", "bad-utf8"), FAILED
    ),
    **dict.fromkeys(
        (
            *("garbage", "no-done", "usage-every-chunk", "events-after-done", "torn", "torn-crlf", "crlf", "comments"),
            "big-line",
        ),
        WHOLE,
    ),
    **dict.fromkeys(
        ("no-usage", "negative-usage", "float-usage", "string-usage", "null-usage", "huge-usage", "cached-over-prompt"),
        ESTIMATED_ANSWER,
    ),
}
CASES = {
    **{(name, True): expected for name, expected in {**BOTH, **STREAMED}.items()},
    **{(name, False): expected for name, expected in {**BOTH, **NOT_STREAMED}.items()},
}


@dataclass
class Happened:
    """All views of one request."""

    answer: Answer
    record: Record
    told: TruthEntry


@pytest.fixture(scope="module")
def happened(installation: Installation, truth: TruthUpstream) -> dict[tuple[str, bool], Happened]:
    """Every case asked at once: those that stall set the time it takes."""
    mark, number = new_id("req"), truth.last_number()

    async def ask_all() -> list[Answer]:
        async with caller(installation) as asking:
            work = [
                partial(asking.ask, fault_model(name), WORDS, stream=streamed, user=f"{name} {streamed}")
                for name, streamed in CASES
            ]
            return await gather_limited(work, len(CASES))

    answers = asyncio.run(ask_all())
    told = truth.ended_since(number)
    records = settled_records(installation, mark, told)
    assert set(records) == set(told) == {answer.request_id for answer in answers}
    views = (Happened(answer, records[answer.request_id], told[answer.request_id]) for answer in answers)
    return dict(zip(CASES, views, strict=True))


def test_every_fault_of_the_sandbox_is_tried_streamed_and_not() -> None:
    stems = {name for name, fault in FAULTS.items() if not fault.numbered}
    stems |= {f"{name}-3" for name, fault in FAULTS.items() if fault.numbered} | {"cut-0"}
    assert {name for name, streamed in CASES if streamed} == stems
    assert {name for name, streamed in CASES if not streamed} == stems


@pytest.mark.parametrize(
    ("name", "streamed"), list(CASES), ids=[f"{name}-{'stream' if streamed else 'whole'}" for name, streamed in CASES]
)
def test_client_and_record_agree_about_the_fault(
    happened: dict[tuple[str, bool], Happened], name: str, streamed: bool
) -> None:
    expected, case = CASES[name, streamed], happened[name, streamed]
    _check_client(expected, case.answer, streamed=streamed, model=fault_model(name))
    _check_record(expected, case.record, streamed=streamed)
    assert case.told.attempts == 1


def _check_client(expected: Expected, answer: Answer, *, streamed: bool, model: str) -> None:
    assert answer.broken == ""
    assert answer.status == expected.status
    if expected.code is None:
        assert answer.is_whole
        assert answer.events.count(b"[DONE]") == int(streamed)
        assert {chunk["model"] for chunk in (answer.chunks if streamed else [answer.json])} == {model}
        assert (answer.usage["prompt_tokens"], answer.usage["completion_tokens"]) == expected.tokens
        assert answer.usage["cost_details"] == {"estimated": expected.estimated}
    else:
        assert answer.error["code"] == expected.code
        assert set(answer.error) == {"message", "type", "param", "code"}
        assert b"[DONE]" not in answer.body
    if expected.status == 503:
        assert float(answer.headers["retry-after"]) >= 1
    if expected.text is not None:
        assert _text(answer) == expected.text


def _text(answer: Answer) -> str:
    """The content that arrived, in a stream that broke too."""
    if not answer.events:
        return answer.text
    deltas: list[dict[str, Any]] = [c["choices"][0]["delta"] for c in answer.chunks if c.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


def _check_record(expected: Expected, record: Record, *, streamed: bool) -> None:
    assert record.status == expected.outcome
    assert record.error_code == (expected.code or "")
    assert record.http_status == expected.status
    assert record.streamed is streamed
    assert (record.prompt_tokens, record.completion_tokens) == expected.tokens
    assert record.estimated is expected.estimated
    assert record.cost_nanos == nanos(cost_usd(record))
    assert (record.cost_nanos > 0) == (sum(expected.tokens) > 0)


def test_a_stream_is_never_billed_for_more_output_than_the_upstream_sent(
    happened: dict[tuple[str, bool], Happened],
) -> None:
    for (name, streamed), case in happened.items():
        if streamed and case.told.chunks:
            assert case.record.completion_tokens <= case.told.tokens, name


def test_rollups_follow_failed_and_estimated_records_too(
    installation: Installation, happened: dict[tuple[str, bool], Happened]
) -> None:
    assert len(happened) == len(CASES)
    assert rollup_differences(installation) == []


def test_nothing_of_the_upstream_is_in_any_answer(happened: dict[tuple[str, bool], Happened]) -> None:
    secrets = (API_KEY, API_KEY[3:20], HOST, "sandbox-fault", "fp_sandbox", "vendor", "of_the_operator", "cf-ray")
    for (name, streamed), case in happened.items():
        said = f"{case.answer.headers} {case.answer.body.decode(errors='replace')}"
        found = [secret for secret in secrets if secret in said]
        assert found == [], (name, streamed)
        assert case.answer.request_id.startswith("req_")


def test_nothing_secret_is_in_any_log(installation: Installation, happened: dict[tuple[str, bool], Happened]) -> None:
    assert happened
    secrets = {"upstream key": API_KEY, "part of it": API_KEY[3:20], "our key": installation.api_key, "host": HOST}
    found = [(file, what) for file, text in installation.logs().items() for what, it in secrets.items() if it in text]
    assert found == []
    assert WORDS not in "".join(installation.logs().values())
    exported = installation.crun("catalog", "export").stdout
    assert FAULT in exported
    assert API_KEY not in exported
