"""The bridge to the database, when that hangs."""

import asyncio
import gc
import threading
import weakref
from functools import partial

import pytest

from apps.core.errors import Unavailable
from apps.gateway.server import bridge
from apps.gateway.server.bridge import Busy, LastingBridge


class Answer:
    """Something large that is to be stored."""


def hang(until: threading.Event) -> None:
    until.wait(10)


def store(answer: Answer) -> str:
    return "stored"


@pytest.mark.asyncio
async def test_who_gives_up_waiting_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "READ_TIMEOUT_S", 0.1)
    lasting, comes_back = LastingBridge("storing"), threading.Event()
    for _ in range(lasting.threads):
        with pytest.raises(Unavailable):
            await lasting.run(partial(hang, comes_back))
    answers = [Answer() for _ in range(3)]
    left = [weakref.ref(answer) for answer in answers]
    told = await asyncio.gather(*(lasting.run(partial(store, answer)) for answer in answers), return_exceptions=True)
    assert [type(each) for each in told] == [Busy] * 3
    del told, answers
    await asyncio.sleep(0)
    gc.collect()
    kept = sum(each() is not None for each in left)
    comes_back.set()
    assert not kept
    monkeypatch.setattr(bridge, "READ_TIMEOUT_S", 30)
    stored = await asyncio.gather(*(lasting.run(partial(store, Answer())) for _ in range(5)))
    assert stored == ["stored"] * 5
    lasting.close()
