"""Keeping customers apart: what goes wrong for one is logged, and the work for the others goes on."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

log = logging.getLogger(__name__)
Thing = TypeVar("Thing")


def each(things: Iterable[Thing], act: Callable[[Thing], None], *, work: str) -> list[Thing]:
    """Do `act`, which cares for its own transactions, for every thing; returns those for which it failed, in order.

    Failures are logged with `work`, what was being done, and the thing. The caller says what comes of them."""
    failed = []
    for thing in things:
        try:
            act(thing)
        except Exception:  # whatever one customer's rows bring about, the next customer is looked at
            log.exception("%s failed for one and goes on with the next", work, extra={"thing": str(thing)})
            failed.append(thing)
    return failed
