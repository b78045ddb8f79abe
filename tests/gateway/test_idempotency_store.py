"""Idempotency keys in the store, and answers as they are kept: any history is as a model says, any bytes come back."""

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.gateway.idempotency.answers import MAX_PLAIN_BYTES, Recording, replay
from apps.gateway.idempotency.claims import CLAIM, END, RENEW, Found, KeyedRequest, State
from apps.gateway.kept.packing import Packing
from apps.gateway.server.answer import Answer

RING = {"k1": b"1" * 32}
TTL_MS = 600_000
OVERHEAD = 512
_serial = itertools.count(1)


def keyed(request_id: str = "req_1", **changes: str) -> KeyedRequest:
    values = {"organization_id": "org_1", "name": "n" * 64, "body": "b" * 64, "request_id": request_id}
    return KeyedRequest(**(values | changes))


def recorded(parts: list[bytes], *, most_bytes: int = 1 << 20) -> bytes | None:
    response = Answer(status=200, headers={"content-type": "text/event-stream", "x-other": "1"})
    recording = Recording(response, most_bytes=most_bytes)
    for part in parts:
        recording.add(part)
    return recording.sealed(keyed(), RING)


@given(st.lists(st.binary(max_size=2_000), max_size=30))
def test_an_answer_comes_back_byte_for_byte_however_it_was_cut(parts: list[bytes]) -> None:
    sealed = recorded(parts)
    assert sealed is not None
    again = replay(Found(State.KEPT, "req_1", 1_500_000, sealed), keyed("req_2"), RING)
    assert again is not None
    assert (again.content, again.status_code) == (b"".join(parts), 200)
    assert (again.headers["content-type"], again.headers["x-other"]) == ("text/event-stream", "1")
    assert (again.headers["x-crun-cost"], again.headers["x-crun-idempotent-replay"]) == ("0.001500000", "true")


@pytest.mark.parametrize(
    "changes", [{"organization_id": "org_2"}, {"name": "m" * 64}, {"body": "c" * 64}, {"request_id": "req_9"}]
)
def test_an_answer_opens_for_its_own_organization_key_body_and_request_alone(changes: dict[str, str]) -> None:
    sealed = recorded([b"mine"])
    assert sealed is not None
    asked = keyed(**changes)
    first = changes.get("request_id", "req_1")
    assert replay(Found(State.KEPT, first, 1, sealed), asked, RING) is None


def test_what_is_too_large_is_not_kept_and_takes_no_memory() -> None:
    assert recorded([b"x" * 1000], most_bytes=10) is None
    assert recorded([bytes(1 << 20)] * (MAX_PLAIN_BYTES >> 20)) is not None
    assert recorded([bytes(1 << 20)] * (MAX_PLAIN_BYTES >> 20) + [b"x"]) is None
    packing = Packing(most_bytes=100, most_plain=MAX_PLAIN_BYTES)
    for number in range(1_000):
        packing.add(str(number * 7919).encode())
    assert packing.is_too_large and packing._parts == []


STEPS = st.one_of(
    st.tuples(st.just("take"), st.sampled_from("AB"), st.just("")),
    st.tuples(st.just("take over"), st.just("A"), st.just("")),
    st.tuples(st.just("renew"), st.sampled_from(["", "old"]), st.just("")),
    st.tuples(st.just("end"), st.sampled_from(["kept", "spent", "free"]), st.sampled_from(["", "old"])),
    st.tuples(st.just("lapse"), st.just(""), st.just("")),
    st.tuples(st.just("forget"), st.just(""), st.just("")),
)


class Model:
    """One key: who has it, with which body, in which state; what the script must answer."""

    def __init__(self) -> None:
        self.state, self.owner, self.body, self.is_lost = "", "", "", False

    def take(self, request: str, body: str, instead_of: str) -> list[str]:
        if self.state:
            if body != self.body:
                return ["other_body", self.owner]
            if self.state != "running":
                return [self.state, self.owner]
            if not self.is_lost:
                return ["running", self.owner]
            if instead_of != self.owner:
                return ["lost", self.owner]
        self.state, self.owner, self.body, self.is_lost = "running", request, body, False
        return ["taken"]

    def belongs_to(self, request: str) -> bool:
        return self.state == "" or (self.owner == request and self.state == "running")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=25))
def test_any_history_of_one_key_is_what_the_model_says(empty_store: Any, steps: list[tuple[str, str, str]]) -> None:
    """At any time one request has the key at most, and only it can end it, once."""
    index, entry = f"crun:{{org_{next(_serial)}}}:idempotency", "name"
    empty_store.delete(*empty_store.keys("crun:kept:*"), "nothing")
    empty_store.hset(index, "epoch", "server")
    empty_store.hset("crun:claiming:server", "worker", 1)
    model, requests = Model(), itertools.count(1)
    last: tuple[str, str] = ("req_0", "A")
    for what, first, second in steps:
        request, body = last if second != "old" and first != "old" else ("req_old", "A")
        if what.startswith("take"):
            request, instead_of = f"req_{next(requests)}", model.owner if what == "take over" else ""
            expected = model.take(request, first, instead_of)
            arguments = (entry, first, request, 60_000, TTL_MS, 10, "worker", instead_of)
            got = empty_store.eval(CLAIM.text, 1, index, "server", *arguments)
            assert [part.decode() for part in got[:2]] == expected
            last = (request, first) if expected == ["taken"] else last
        elif what == "renew":
            got = empty_store.eval(RENEW.text, 1, index, "server", entry, body, request, 60_000, TTL_MS)
            assert got == int(model.belongs_to(request))
            if got:
                model.state, model.owner, model.body, model.is_lost = "running", request, body, False
        elif what == "end":
            got = empty_store.eval(
                END.text, 1, index, "server", entry, body, request, TTL_MS, first, 5, "text", 999, 9_999
            )
            assert got == int(model.belongs_to(request))
            if got:
                model.state, model.owner, model.body = ("" if first == "free" else first), request, body
        elif what == "lapse" and model.state == "running":
            empty_store.hset(f"{index}:{entry}", "lease", 1)
            model.is_lost = True
        elif what == "forget":
            owner = index.removesuffix(":idempotency")
            empty_store.delete(f"{index}:{entry}", index + ":ends", owner + ":kept", *empty_store.keys("crun:kept:*"))
            model.state = ""
        taken = int(empty_store.get("crun:kept:bytes") or 0)
        assert taken == (4 + OVERHEAD if model.state == "kept" else 0)
        assert empty_store.zcard(index + ":ends") == (1 if model.state else 0)
