"""Time-ordered ids."""

from datetime import UTC, date, datetime

import pytest
import time_machine

from apps.core.ids import created_at, new_id, utc_day


def test_an_id_tells_when_it_was_made() -> None:
    with time_machine.travel(datetime(2026, 12, 31, 23, 59, 59, 999000, UTC), tick=False):
        made = new_id("req")
    assert created_at(made) == datetime(2026, 12, 31, 23, 59, 59, 999000, UTC)
    assert utc_day(made) == date(2026, 12, 31)


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    with time_machine.travel(0, tick=False) as clock:
        made = []
        for _ in range(100):
            made.append(new_id("key"))
            clock.shift(0.001)
    assert made == sorted(made)
    assert len({new_id("req") for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("text", ["", "req_", "req_zz", "req_" + "f" * 31, "REQ_" + "0" * 32, "req_" + "f" * 32 + "\n"])
def test_anything_else_is_no_id(text: str) -> None:
    with pytest.raises(ValueError):
        created_at(text)


def test_a_far_future_id_is_no_id() -> None:
    with pytest.raises(ValueError):
        created_at("req_" + "f" * 32)
