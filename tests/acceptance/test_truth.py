"""Metering against the truth: what PostgreSQL says is what the upstream did, token by token, to the nano-dollar."""

import asyncio
import csv
import io
import random
import time
from collections import Counter
from decimal import Decimal
from functools import partial
from typing import Any

import orjson
import pytest

from tests.acceptance.asking import Answer, caller, gather_limited, some_words
from tests.acceptance.installing import Installation
from tests.acceptance.records import (
    Record,
    cost_usd,
    difference,
    nanos,
    rolled_up_nanos,
    rollup_differences,
    settled_records,
)
from tests.acceptance.scale import figure, sized
from tests.acceptance.upstream import TruthUpstream

pytestmark = [pytest.mark.installation, pytest.mark.timeout(900)]

REQUESTS = sized(600, 5_000)
AT_ONCE = 100
MODEL = "truth-echo"


def _varied(random_numbers: random.Random, number: int) -> dict[str, Any]:
    """A request of many a shape; every second one is a stream."""
    content = some_words(random_numbers)
    script: dict[str, Any] = {
        "cached_tokens": random_numbers.randint(0, len(content.split())),
        "reasoning_tokens": random_numbers.choice([0, 0, 3, 11]),
    }
    fields: dict[str, Any] = {"content": content, "stream": number % 2 == 0, "sandbox": script}
    if random_numbers.random() < 0.2:
        script["chunks"] = random_numbers.randint(1, 200)
    if random_numbers.random() < 0.1:
        fields["n"] = random_numbers.randint(2, 4)
    if random_numbers.random() < 0.1:
        fields["max_tokens"] = random_numbers.randint(1, 12)
    return fields


async def _ask_all(installation: Installation, key: str) -> list[Answer]:
    random_numbers = random.Random(2026)
    async with caller(installation, key) as asking:
        wanted = [_varied(random_numbers, number) for number in range(REQUESTS)]
        return await gather_limited((partial(asking.ask, MODEL, **fields) for fields in wanted), AT_ONCE)


@pytest.fixture(scope="module")
def answered(
    installation: Installation, truth: TruthUpstream
) -> tuple[list[Answer], dict[str, Record], dict[str, Any]]:
    """The answers to all requests, the records of exactly these, and the truth about them."""
    number = truth.last_number()
    secret, _ = installation.new_key("truth")
    began = time.monotonic()
    answers = asyncio.run(_ask_all(installation, secret))
    took_s = time.monotonic() - began
    assert Counter(answer.status for answer in answers) == {200: REQUESTS}
    first = min(answer.request_id for answer in answers)
    told = truth.ended_since(number)
    records = settled_records(installation, first[:-1], told)
    posted_s = time.monotonic() - began
    figure("truth", f"{REQUESTS} requests, concurrency {AT_ONCE}: {took_s:.1f} s; all posted after {posted_s:.1f} s")
    return answers, records, told


def test_every_answer_is_whole_and_its_client_was_told_the_usage_and_the_cost_of_its_record(
    answered: tuple[list[Answer], dict[str, Record], dict[str, Any]],
) -> None:
    answers, records, _ = answered
    assert all(answer.is_whole for answer in answers)
    assert sum(bool(answer.events) for answer in answers) == REQUESTS // 2
    for answer in answers:
        record, usage = records[answer.request_id], answer.usage
        assert usage["prompt_tokens"] == record.prompt_tokens
        assert usage["completion_tokens"] == record.completion_tokens
        assert usage["prompt_tokens_details"]["cached_tokens"] == record.cache_read_tokens
        assert usage["completion_tokens_details"]["reasoning_tokens"] == record.reasoning_tokens
        assert nanos(Decimal(str(usage["cost"]))) == record.cost_nanos
        if not answer.events:
            assert nanos(Decimal(answer.headers["x-crun-cost"])) == record.cost_nanos


def test_usage_records_are_the_truth_log_line_by_line_and_token_by_token(
    answered: tuple[list[Answer], dict[str, Record], dict[str, Any]],
) -> None:
    answers, records, told = answered
    assert set(told) == {answer.request_id for answer in answers}
    assert set(records) == set(told)
    differing = {name: found for name in told if (found := difference(records[name], told[name]))}
    assert differing == {}
    figure("truth", f"{len(told)} truth entries = {len(records)} records, {len(differing)} differ")


def test_the_sum_of_the_costs_is_exact(
    installation: Installation, answered: tuple[list[Answer], dict[str, Record], dict[str, Any]]
) -> None:
    answers, records, _ = answered
    by_hand = sum((cost_usd(record) for record in records.values()), Decimal(0))
    assert by_hand > 0
    assert nanos(by_hand) == sum(record.cost_nanos for record in records.values())
    told = sum((Decimal(str(answer.usage["cost"])) for answer in answers), Decimal(0))
    assert told == by_hand
    figure("truth", f"sum of costs {by_hand} USD, exact")
    [key_id] = {record.key_id for record in records.values()}
    assert rolled_up_nanos(installation, key_id) == nanos(by_hand)


def test_rollups_are_the_sums_of_the_records(
    installation: Installation, answered: tuple[list[Answer], dict[str, Record], dict[str, Any]]
) -> None:
    assert len(answered[1]) == REQUESTS
    assert rollup_differences(installation) == []


def test_exports_have_exactly_one_row_a_request_with_the_cost_of_its_record(
    installation: Installation, answered: tuple[list[Answer], dict[str, Record], dict[str, Any]]
) -> None:
    _, records, _ = answered
    columns = "request_id,created_at,key_id,project,model,provider,status,input_tokens,cache_read_tokens"
    for form in ("csv", "jsonl"):
        done = installation.crun("usage", "export", "--organization", "demo", "--format", form)
        assert done.returncode == 0, done.stderr
        if form == "csv":
            assert done.stdout.startswith(columns + ",")
            rows = list(csv.DictReader(io.StringIO(done.stdout)))
        else:
            rows = [orjson.loads(line) for line in done.stdout.splitlines()]
        ours = [row for row in rows if row["request_id"] in records]
        assert len(ours) == len(records)
        for row in ours:
            record = records[row["request_id"]]
            assert Decimal(row["cost_usd"]) == cost_usd(record)
            assert int(row["output_tokens"]) == record.output_tokens
            assert row["key_id"] == record.key_id
            assert (row["project"], row["model"], row["status"]) == ("default", MODEL, "completed")
            assert row["estimated"] in (False, "false")
        assert [row["request_id"] for row in rows] == sorted(row["request_id"] for row in rows)
