"""Receipts, credits and sandbox keys of a running installation with two workers, as clients see them."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai import OpenAI, PermissionDeniedError

from tests.acceptance.asking import Caller, caller, some_words
from tests.acceptance.installing import Installation
from tests.acceptance.scale import figure
from tests.acceptance.upstream import TruthUpstream

pytestmark = [pytest.mark.installation, pytest.mark.timeout(300)]
READS = 200
AT_ONCE = 20


@pytest.fixture(scope="module")
def http(installation: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as made:
        yield made


def ask(http: httpx.Client, installation: Installation, path: str, *, key: str = "", **query: str) -> Any:
    """The `data` of an endpoint, amounts as they were written."""
    headers = {"authorization": f"Bearer {key or installation.api_key}"}
    answer = http.get(f"{installation.api}/{path}", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)["data"]


def new_key(installation: Installation, *options: str, organization: str = "demo") -> str:
    made = installation.crun("key", "create", "--organization", organization, "--name", "receipts", *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def test_200_receipts_are_read_the_moment_their_answers_end_without_one_404(
    installation: Installation, truth: TruthUpstream
) -> None:
    statuses: Counter[int] = Counter()
    took: list[float] = []
    wrong: list[Any] = []

    async def one(asking: Caller, client: httpx.AsyncClient, number: int) -> None:
        answer = await asking.ask("truth-echo", some_words(), stream=number % 2 == 0)
        began = time.monotonic()
        told = await client.get("/generation", params={"id": answer.headers["x-crun-generation-id"]})
        took.append(time.monotonic() - began)
        statuses[told.status_code] += 1
        if told.status_code == 200:
            receipt = json.loads(told.text, parse_float=Decimal)["data"]["receipt"]
            lines = sum(Decimal(line["amount"]) for line in receipt["lines"])
            cost = Decimal(str(answer.usage["cost"]))
            if lines + Decimal(receipt["rounding"]) != cost or Decimal(receipt["charged"]) != cost:
                wrong.append((receipt, cost))

    async def run() -> None:
        free = asyncio.Semaphore(AT_ONCE)

        async def limited(asking: Caller, client: httpx.AsyncClient, number: int) -> None:
            async with free:
                await one(asking, client, number)

        headers = {"authorization": f"Bearer {installation.api_key}"}
        async with (
            caller(installation) as asking,
            httpx.AsyncClient(base_url=installation.api, headers=headers, timeout=30) as client,
        ):
            await asyncio.gather(*(limited(asking, client, number) for number in range(READS)))

    asyncio.run(run())
    assert statuses == {200: READS}
    assert wrong == []
    took.sort()
    figure(
        "receipts", f"{READS} read at once: median {took[READS // 2] * 1000:.1f} ms, slowest {took[-1] * 1000:.0f} ms"
    )


def test_the_portal_and_strangers(installation: Installation, truth: TruthUpstream, http: httpx.Client) -> None:
    made = installation.crun("org", "create", "Receipt strangers")
    assert made.returncode == 0, made.stderr
    stranger = new_key(installation, organization=made.stdout.split()[0])
    with OpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="truth-echo", messages=[{"role": "user", "content": "a private word"}]
        )
        wanted = raw.headers["x-crun-generation-id"]
        assert ask(http, installation, "generation", id=raw.parse().id)["request_id"] == wanted
    refused = http.get(
        f"{installation.api}/generation", params={"id": wanted}, headers={"authorization": f"Bearer {stranger}"}
    )
    assert refused.status_code == 404


def test_credits_move_with_every_request_before_anything_is_posted(
    installation: Installation, truth: TruthUpstream, http: httpx.Client
) -> None:
    key = new_key(installation, "--budget-usd", "1", "--budget-period", "day")
    before = ask(http, installation, "credits", key=key)
    costs = Decimal(0)
    with OpenAI(base_url=installation.api, api_key=key, max_retries=0) as client:
        for _ in range(5):
            answer = client.chat.completions.create(
                model="truth-echo", messages=[{"role": "user", "content": some_words()}]
            )
            assert answer.usage is not None and answer.usage.model_extra is not None
            costs += Decimal(str(answer.usage.model_extra["cost"]))
            # Another worker may be asked while the one that answered still tells the store what that cost.
            deadline = time.monotonic() + 5
            while (now := ask(http, installation, "credits", key=key))["balance"] != before["balance"] - costs:
                assert time.monotonic() < deadline, (now, before, costs)
            assert now["balance"] == now["total_credits"] - now["total_usage"]
            mine = ask(http, installation, "key", key=key)
            assert mine["usage"] == mine["usage_daily"] == costs == 1 - mine["limit_remaining"]
    assert ask(http, installation, "client/account/balance", key=key)["balance"] == now["balance"]


def test_a_sandbox_key_works_as_a_live_one_and_no_money_moves(installation: Installation, http: httpx.Client) -> None:
    key = new_key(installation, "--sandbox")
    assert key.startswith("ak_test")
    before = ask(http, installation, "credits")
    with OpenAI(base_url=installation.api, api_key=key, max_retries=0) as client:
        models = {model.id for model in client.models.list()}
        assert "sandbox-echo" in models
        assert all(name.startswith("sandbox-") for name in models)
        answer = client.chat.completions.create(
            model="sandbox-echo", messages=[{"role": "user", "content": "for nothing"}]
        )
        assert answer.usage is not None and answer.usage.model_extra is not None
        assert answer.usage.model_extra["cost"] > 0
        with pytest.raises(PermissionDeniedError, match="sandbox key"):
            client.chat.completions.create(model="truth-echo", messages=[{"role": "user", "content": "no"}])
    told = ask(http, installation, "generation", key=key, id=answer.id)
    assert (told["is_sandbox"], Decimal(told["receipt"]["charged"])) == (True, 0)
    name = told["request_id"]
    deadline = time.monotonic() + 20
    while name not in installation.crun("usage", "export", "--organization", "demo", "--sandbox").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert name not in installation.crun("usage", "export", "--organization", "demo").stdout
    assert ask(http, installation, "credits") == before
    proven = installation.crun("ledger", "verify")
    assert proven.returncode == 0, proven.stdout + proven.stderr
