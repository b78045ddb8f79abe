"""Limits and money hold exactly over four processes of their own, each with 500 requests at once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.conf import settings

from apps.core.redis import single_try_client
from tests.gateway.riches import make_rich

ROOT = Path(__file__).parents[2]
ORG = "org_processes"
PREFIX = f"crun:{{{ORG}}}:"
REQUESTS = 500
USD = 1_000_000_000
Processes = list["subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """Four, which load everything once; each storm has workers of its own in them."""
    environment = os.environ | {"REDIS_URL": settings.REDIS_URL, "DJANGO_SETTINGS_MODULE": "crun.settings"}
    command = [sys.executable, "-m", "tests.gateway.storming_process", ORG]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    yield started
    ended = []
    for process in started:
        process.communicate()  # no more storms
        ended.append(process.returncode)
    assert ended == [0] * 4


def storm(processes: Processes, folder: Path, **orders: Any) -> list[dict[str, Any]]:
    """What all processes answered, which begin when all of them are ready."""

    def write(line: bytes) -> None:
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(line + b"\n")
            process.stdin.flush()

    def read() -> list[bytes]:
        return [process.stdout.readline() for process in processes if process.stdout]

    write(orjson.dumps({"folder": str(folder), "requests": REQUESTS, "grows": False, **orders}))
    assert read() == [b"ready\n"] * len(processes)
    write(b"now")
    told = [orjson.loads(line) for line in read()]
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
def test_2000_requests_at_once_meet_a_limit_exactly(
    processes: Processes, empty_store: Any, tmp_path: Path, limits: dict[str, int], admitted: int
) -> None:
    answers = storm(processes, tmp_path, nanos=1_000, limits={"organization_limits": limits})
    assert len(answers) == 4 * REQUESTS
    got, given_up = sum(answer["admitted"] for answer in answers), sum(answer["away"] for answer in answers)
    assert got <= admitted <= got + given_up
    assert int(empty_store.hget(PREFIX + "money", "held")) == got * 1_000


@pytest.mark.parametrize("attempt", range(3))
def test_streams_that_take_all_they_can_get_spend_a_dollar_and_not_a_nano_more(
    processes: Processes, empty_store: Any, tmp_path: Path, attempt: int
) -> None:
    """Two processes; nobody is refused while what is left covers the first hold."""
    client = single_try_client()
    make_rich([ORG], tmp_path)
    client.hset(PREFIX + "money", "balance", USD)
    client.close()
    answers = storm(processes[:2], tmp_path, nanos=1_300_000, grows=True, limits={})
    assert sum(answer["cost"] for answer in answers) == USD
    assert all(answer["left"] < 1_300_000 for answer in answers if not answer["admitted"])
    money = empty_store.hgetall(PREFIX + "money")
    assert (int(money[b"balance"]), int(money[b"held"])) == (0, 0)
    assert empty_store.hlen(PREFIX + "holds") == 0
