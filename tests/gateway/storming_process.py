"""A gateway process as the store sees it: it takes many requests at once, and says what became of them.

`python -m tests.gateway.storming_process ORGANIZATION`. A line of standard input is one storm, a JSON object; when the
worker that has its journal in `folder` is there, the line `ready` is answered, and any line lets it begin."""

import asyncio
import random
import sys
from pathlib import Path
from typing import Any

import django

django.setup()

import orjson  # noqa: E402 - Django first

from apps.billing.admission import Admitted, Lack, Refused  # noqa: E402 - Django first
from apps.core.errors import Unavailable  # noqa: E402 - Django first
from apps.core.limits import Limits  # noqa: E402 - Django first
from apps.gateway.admission.reservations import Reservations  # noqa: E402 - Django first
from tests.factories import closed, opened  # noqa: E402 - Django first
from tests.gateway.riches import make_rich  # noqa: E402 - Django first
from tests.gateway.storms import Worker, demand, running_worker  # noqa: E402 - Django first


async def storm(organization_id: str, orders: dict[str, Any]) -> None:
    async with running_worker(Path(orders["folder"]), make_states=make_rich) as worker:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        limits = {name: Limits(**values) for name, values in orders["limits"].items()}
        work = _grow if orders["grows"] else _ask
        answers = await asyncio.gather(
            *(work(worker, demand(organization_id, orders["nanos"], **limits)) for _ in range(orders["requests"]))
        )
        await worker.reservations.drain(20)
        told = {"answers": answers, "unsettled": worker.reservations.unsettled_requests}
    print(orjson.dumps(told).decode(), flush=True)


async def _ask(worker: Worker, wanted: Any) -> dict[str, Any]:
    await asyncio.sleep(random.random())
    answer = await _reserve(worker.reservations, wanted)
    return {"admitted": isinstance(answer, Admitted), "away": answer is None}


async def _grow(worker: Worker, wanted: Any) -> dict[str, Any]:
    """A stream that goes on until there is no money for more of it, and costs all that it holds."""
    answer = await _reserve(worker.reservations, wanted)
    if not isinstance(answer, Admitted):
        return {"admitted": False, "left": answer.allowance.left_nanos if answer else 0, "cost": 0}
    hold, lack = answer.hold_nanos, None
    entry = opened(
        request_id=wanted.request_id, organization_id=wanted.organization_id, project_id="proj_1", key_id="key_1",
        hold_nanos=hold,
    )  # fmt: skip
    worker.journal.open_request(entry)
    while lack is None:
        await asyncio.sleep(random.random() / 100)
        grown = await worker.reservations.grow(
            wanted, wanted_nanos=hold + random.randrange(1, 400_000), tokens=5, note=lambda nanos: True
        )
        hold, lack = grown.hold_nanos, grown.lack
    assert isinstance(lack, Lack)
    end = closed(entry, cost_nanos=hold)
    worker.journal.close_request(end)
    worker.reservations.settle(end)
    return {"admitted": True, "left": 0, "cost": hold}


async def _reserve(reservations: Reservations, wanted: Any) -> Admitted | Refused | None:
    """None: this machine is too busy for so many processes, and the request is given up."""
    try:
        return await reservations.reserve(wanted)
    except Unavailable:
        return None


if __name__ == "__main__":
    for line in iter(sys.stdin.readline, ""):
        asyncio.run(storm(sys.argv[1], orjson.loads(line)))
