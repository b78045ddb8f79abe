"""Storing, deleting, evicting and erasing that meet at the same conversation: none fails, and the sums stay true."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import product
from typing import Any

import pytest
from django.db import connection, connections, transaction

from apps.responses.contracts import OpenedResponse, ResponseOwner
from apps.responses.forgetting import erase, evict, kept_by
from apps.responses.keeping import delete, keep, read_chain
from tests.billing.test_killed_posting import others, wait_for
from tests.responses.test_forgetting import CONTENT, RING, new_owner, turns

pytestmark = pytest.mark.django_db(transaction=True)
_WRONG_SUMS = """
SELECT count(*) FROM responses_responsechain chain WHERE bytes <> coalesce(
    (SELECT sum(octet_length(sealed)) FROM responses_storedresponse WHERE chain_id = chain.id), 0)
"""


class Steps:
    """Stops a thread's work after its first statement, until it may go on."""

    def __init__(self) -> None:
        self.is_stopped = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        done = execute(*arguments)
        if not self.is_stopped.is_set():
            self.is_stopped.set()
            assert self.may_go_on.wait(20)
        return done


def in_thread(pool: ThreadPoolExecutor, work: Callable[[], Any], steps: Steps | None = None) -> "Future[Any]":
    """With a connection of its own."""

    def run() -> Any:
        try:
            if steps is None:
                return work()
            with connection.execute_wrapper(steps):
                return work()
        finally:
            connections.close_all()

    return pool.submit(run)


def meet(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """What both return: the second comes when the first has done its first statement."""
    steps = Steps()
    with ThreadPoolExecutor(2) as pool:
        try:
            one = in_thread(pool, first, steps)
            wait_for(steps.is_stopped.is_set)
            other = in_thread(pool, second)
            wait_for(lambda: other.done() or others(waiting=True) > 0)
        finally:
            steps.may_go_on.set()
        return one.result(), other.result()


def is_counted_right() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_WRONG_SUMS)
        return bool(cursor.fetchone() == (0,))


def go_on(owner: ResponseOwner, names: list[str]) -> int:
    """Store one turn more, whose id follows from theirs."""
    response = OpenedResponse(f"{names[-1]}next", names[0], CONTENT)
    return keep(owner, response, previous_id=names[-1], days=30, ring=RING)


def test_no_two_of_them_wait_for_each_other_and_nothing_is_left_half() -> None:
    for number, (kind, other) in enumerate(product((erase, evict), (go_on, delete, erase, evict))):
        owner = new_owner(f"owner-{number}")
        names = turns(owner, f"{number}x", 3)
        turns(owner, f"{number}y", 2)
        works: dict[Any, Callable[[], Any]] = {
            erase: partial(erase, owner.organization_id),
            evict: partial(evict, owner.organization_id, 0),
            go_on: partial(go_on, owner, names),
            delete: partial(delete, owner, names[1]),
        }
        gone, came = meet(works[kind], works[other])
        left = kept_by(owner.organization_id)
        if kind is evict:
            assert gone == 2, other
        if other is go_on:  # it comes after what is deleted, without what was before it, or is deleted, too
            assert left == (1, 0, came) or (kind is erase and gone == (6, 0) and left == (0, 0, 0))
            assert not read_chain(owner, f"{names[-1]}next", most_bytes=1 << 20, ring=RING)[1]
        else:
            assert left == (0, 0, 0) and came in (0, False, (0, 0)), (kind, other)
            assert kind is evict or gone == (5, 0), other
        assert is_counted_right()


def test_what_is_stored_twice_is_counted_once() -> None:
    """As after a connection that died before it told that all was done: then the same is done again."""
    owner = new_owner()
    names = turns(owner, "a", 2)
    size = go_on(owner, names)
    assert go_on(owner, names) == size and is_counted_right()
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            keep(owner, OpenedResponse("resp_twin", names[0], CONTENT), previous_id=names[1], days=30, ring=RING)
            again = in_thread(
                pool,
                lambda: keep(
                    owner, OpenedResponse("resp_twin", names[0], CONTENT), previous_id=names[1], days=30, ring=RING
                ),
            )
            wait_for(lambda: again.done() or others(waiting=True) > 0)
            assert not again.done()
        again.result()
    assert kept_by(owner.organization_id).responses == 4 and is_counted_right()
