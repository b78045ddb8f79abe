"""A reply as a plan: status, headers, and the steps its bytes leave in. Values; playing.py performs them."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

Headers = tuple[tuple[str, str], ...]


class Act(Enum):
    """What happens after a step's payload was written."""

    SEND = "send"  # nothing more
    CHUNK = "chunk"  # it carried a piece of the answer: the truth log gets a line
    END = "end"  # it was the last event of a whole stream
    FAIL = "fail"  # it told the caller of an error: the outcome is `error`
    STALL = "stall"  # nothing, until the client leaves
    CUT = "cut"  # the connection is closed by FIN
    RESET = "reset"  # the connection is closed by RST


class Outcome(Enum):
    """How a request ended, as the truth log says it."""

    COMPLETE = "complete"
    CUT = "cut"
    CLIENT_GONE = "client_gone"
    ERROR = "error"


class Step(NamedTuple):
    """Wait `pause_s`, write `payload`, then `act`. `tokens` are the completion tokens the payload carries."""

    payload: bytes = b""
    act: Act = Act.SEND
    tokens: int = 0
    pause_s: float = 0.0
    carries_usage: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One reply. Without `status` no head is written and the payloads are the raw bytes of the connection."""

    status: int | None
    steps: Iterable[Step] = ()
    headers: Headers = ()
    length: int | None = None  # the content-length to announce; None: chunked
    head_pause_s: float = 0.0
    outcome: Outcome = Outcome.COMPLETE


def whole(status: int, body: bytes, *, headers: Headers = (), outcome: Outcome = Outcome.COMPLETE) -> Plan:
    """A plan that sends `body` at once; the content type is JSON unless `headers` name another."""
    if not any(name == "content-type" for name, _ in headers):
        headers = (("content-type", "application/json"), *headers)
    return Plan(status, (Step(body),), headers, len(body), outcome=outcome)
