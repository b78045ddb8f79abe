"""Limits and money hold exactly over four processes of their own, each with 500 requests at once."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.conf import settings

from apps.core.redis import single_try_client
from tests.gateway.conftest import make_rich

ROOT = Path(__file__).parents[2]
ORG = "org_processes"
PREFIX = f"crun:{{{ORG}}}:"
REQUESTS = 500
USD = 1_000_000_000
pytestmark = pytest.mark.asyncio


async def storm(folder: Path, processes: int, **orders: Any) -> list[dict[str, Any]]:
    """What all processes answered, which begin when all of them are ready."""
    environment = os.environ | {"REDIS_URL": settings.REDIS_URL, "DJANGO_SETTINGS_MODULE": "crun.settings"}
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.gateway.storming_process", ORG, str(folder), cwd=ROOT, env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 22,
        )
        for _ in range(processes)
    ]  # fmt: skip
    try:
        async with asyncio.timeout(100):
            for process in started:
                assert process.stdout is not None and await process.stdout.readline() == b"ready\n"
            for process in started:
                assert process.stdin is not None
                process.stdin.write(orjson.dumps({"requests": REQUESTS, "grows": False, **orders}) + b"\n")
            told = [orjson.loads(await process.stdout.readline()) for process in started if process.stdout]
            assert [await process.wait() for process in started] == [0] * processes
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert sum(answer["unsettled"] for answer in told) == 0
    return [answer for process in told for answer in process["answers"]]


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        ({"requests_per_minute": 701}, 701),
        ({"tokens_per_minute": 7_019}, 701),
        ({"requests_per_day": 701}, 701),
        ({"concurrency": 701}, 701),
        ({"budget_nanos": 701_999}, 701),
    ],
)
async def test_2000_requests_at_once_meet_a_limit_exactly(
    empty_store: Any, tmp_path: Path, limits: dict[str, int], admitted: int
) -> None:
    answers = await storm(tmp_path, 4, nanos=1_000, limits={"organization_limits": limits})
    assert len(answers) == 4 * REQUESTS
    got, given_up = sum(answer["admitted"] for answer in answers), sum(answer["away"] for answer in answers)
    assert got <= admitted <= got + given_up
    assert int(empty_store.hget(PREFIX + "money", "held")) == got * 1_000


@pytest.mark.parametrize("attempt", range(3))
async def test_streams_that_take_all_they_can_get_spend_a_dollar_and_not_a_nano_more(
    empty_store: Any, tmp_path: Path, attempt: int
) -> None:
    """Two processes; nobody is refused while what is left covers the first hold."""
    client = single_try_client()
    make_rich([ORG], tmp_path)
    client.hset(PREFIX + "money", "balance", USD)
    client.close()
    answers = await storm(tmp_path, 2, nanos=1_300_000, grows=True, limits={})
    assert sum(answer["cost"] for answer in answers) == USD
    assert all(answer["left"] < 1_300_000 for answer in answers if not answer["admitted"])
    money = empty_store.hgetall(PREFIX + "money")
    assert (int(money[b"balance"]), int(money[b"held"])) == (0, 0)
    assert empty_store.hlen(PREFIX + "holds") == 0
