"""The language of the admission scripts: what is asked of them, and what they answer. See docs/admission.md."""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec

from apps.billing.balance_cache import money_key
from apps.core.ids import created_ms
from apps.core.limits import Limits, budget_window
from apps.core.scripts import Argument, Script
from apps.usage.contracts import RequestClosed

LEASE_MS: Final = 30_000
"""A request that is not renewed no longer counts as running."""
HOLD_MS: Final = 60_000
"""A hold that is not renewed may be lost: then journals and records say what became of its request."""
OWNERS: Final = {"k": "key", "p": "project", "o": "organization", "m": "model"}
NO_LIMITS: Final = Limits()
_FOLDER: Final = Path(__file__).parent / "scripts"


def script(name: str) -> Script:
    """The script of this name in `scripts/`, behind what all of them share."""
    return Script.of((_FOLDER / "state.lua").read_text() + "\n" + (_FOLDER / f"{name}.lua").read_text())


ADMIT: Final = script("admit")
GROW: Final = script("grow")
SETTLE: Final = script("settle")
RENEW: Final = script("renew")
INSTALL: Final = script("install")


class Demand(msgspec.Struct, frozen=True, gc=False):
    """What a request needs before it may run: money for the worst case, tokens, a place among the running ones.

    `least_nanos` below `most_nanos`, and `least_tokens` below `tokens`, say that it can be cut to what is there."""

    request_id: str
    organization_id: str
    key_id: str
    project_id: str
    most_nanos: int
    least_nanos: int
    tokens: int
    key_limits: Limits = NO_LIMITS
    project_limits: Limits = NO_LIMITS
    organization_limits: Limits = NO_LIMITS
    model: str = ""
    model_limits: Limits = NO_LIMITS
    """Of the organization on this model."""
    least_tokens: int | None = None
    """None: all `tokens` or nothing."""
    is_again: bool = False
    """It goes on with another model: what it holds so far is given back in the same call, whatever the answer."""

    def arguments(self, hold_ms: int, site: str = "") -> tuple[Argument, ...]:
        """The arguments of ADMIT. `site` names the journals that will know it."""
        arguments: tuple[Argument, ...] = (
            self.request_id, self.key_id, self.project_id, self.most_nanos, self.least_nanos, self.tokens, hold_ms,
            LEASE_MS, *period_starts(self.request_id), packed_limits(self.key_limits),
            packed_limits(self.project_limits), packed_limits(self.organization_limits), self.model,
            packed_limits(self.model_limits), site, self.tokens if self.least_tokens is None else self.least_tokens,
        )  # fmt: skip
        return (*arguments, 1) if self.is_again else arguments

    def uncut(self) -> "Demand":
        """The same for its whole worst case or nothing."""
        if self.least_nanos == self.most_nanos and self.least_tokens in (None, self.tokens):
            return self
        return msgspec.structs.replace(self, least_nanos=self.most_nanos, least_tokens=None)

    def growth_arguments(self, packed: bytes, *, wanted_nanos: int, tokens: int, hold_ms: int) -> tuple[Argument, ...]:
        """The arguments of GROW for its running request: hold `wanted_nanos` in all, for so many tokens more."""
        return (
            self.request_id, packed, wanted_nanos, tokens, hold_ms, *period_starts(self.request_id),
            packed_limits(self.key_limits), packed_limits(self.project_limits), packed_limits(self.organization_limits),
        )  # fmt: skip


class Window(msgspec.Struct, frozen=True, gc=False):
    """A rate as its caller sees it: how many in all, how many are left, milliseconds until it is empty again."""

    limit: int
    left: int
    reset_ms: int


class Allowance(msgspec.Struct, frozen=True, gc=False):
    """What the caller has left, of the owner that has least."""

    requests: Window | None
    tokens: Window | None
    left_nanos: int | None
    """None for a sandbox key, which spends no money."""

    def without_money(self) -> "Allowance":
        """The same without a word of money."""
        return msgspec.structs.replace(self, left_nanos=None)


class Admitted(msgspec.Struct, frozen=True, gc=False):
    """A request that may run. `packed` is its hold as the scripts write it, `generation` the money state it is in.

    `balance_nanos` is the organization's credit at this moment, not counting what running requests hold."""

    hold_nanos: int
    packed: bytes
    generation: bytes
    allowance: Allowance
    balance_nanos: int | None

    @property
    def tokens(self) -> int:
        """How many tokens were taken from the minute."""
        return int(self.packed.split(b"|", 2)[1])

    def without_money(self) -> "Admitted":
        """The same for a sandbox key, which learns nothing of its organization's money."""
        return msgspec.structs.replace(self, allowance=self.allowance.without_money(), balance_nanos=None)


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Which limit said no (`balance`, `budget`, or a name of Limits), and whose. `retry_ms` 0: it will not help."""

    what: str
    owner: str
    limit: int
    retry_ms: int
    allowance: Allowance

    def without_money(self) -> "Refused":
        """The same for a sandbox key, which learns nothing of its organization's money."""
        return msgspec.structs.replace(self, allowance=self.allowance.without_money())


class Lack(msgspec.Struct, frozen=True, gc=False):
    """Why a hold could not grow as far as it wanted: `balance` or `budget`, whose, and how much that is in all."""

    what: str
    owner: str
    limit: int
    retry_ms: int


class Grown(msgspec.Struct, frozen=True, gc=False):
    """A hold after it was asked to grow. `lack` is None when it is as large as it was wanted."""

    hold_nanos: int
    packed: bytes
    generation: bytes
    lack: Lack | None = None


class HoldUnknown(Exception):
    """The money state does not know the hold of this request: it must be told of it first."""

    def __init__(self, generation: bytes) -> None:
        super().__init__("the hold is not known")
        self.generation = generation


def read_growth(reply: list[Any]) -> Grown | None:
    """The answer of GROW; None when the money state is not there. Raises HoldUnknown; ValueError for a request that
    has ended."""
    match reply:
        case [1, bytes(generation), bytes(packed)]:
            return Grown(_nanos_of(packed), packed, generation)
        case [0, bytes(generation), bytes(packed), bytes(what), bytes(owner), int(limit), int(retry_ms)]:
            lack = Lack(what.decode(), OWNERS[owner.decode()], limit, retry_ms)
            return Grown(_nanos_of(packed), packed, generation, lack)
        case [-1]:
            return None
        case [-3, bytes(generation)]:
            raise HoldUnknown(generation)
    raise ValueError(f"not an answer of the growth script: {reply!r}")


def read_admission(reply: list[Any]) -> Admitted | Refused | None:
    """The answer of ADMIT; None when the money state is not there. Raises ValueError for one that nobody should see."""
    if reply[0] == 1:  # as nearly all are: to match it would cost four times as much
        _, generation, packed, *numbers = reply
        return Admitted(_nanos_of(packed), packed, generation, _allowance(numbers), numbers[-1])
    match reply:
        case [0, bytes(what), bytes(owner), int(limit), int(retry_ms), *numbers]:
            return Refused(what.decode(), OWNERS[owner.decode()], limit, retry_ms, _allowance(numbers))
        case [-1]:
            return None
    raise ValueError(f"not an answer of the admission script: {reply!r}")


def packed_cost(closed: RequestClosed) -> str:
    """What a request cost, as the scripts remember it; "" for nothing."""
    opened = closed.opened
    if not closed.charged_nanos:
        return ""
    parts = (closed.charged_nanos, opened.key_id, opened.project_id, *period_starts(opened.request_id))
    return "|".join(map(str, parts))


def settle_arguments(closed: RequestClosed) -> tuple[Argument, ...]:
    """The arguments of SETTLE for a request that ended."""
    opened, tokens = closed.opened, closed.tokens
    # An answer out of the response cache asks nothing of a model: it takes no tokens from anybody's minute.
    used = 0 if opened.cache_hit is not None else tokens.all_input + tokens.all_output
    return (
        opened.request_id, opened.key_id, opened.project_id, closed.charged_nanos, used,
        *period_starts(opened.request_id),
    )  # fmt: skip


def release_arguments(demand: Demand) -> tuple[Argument, ...]:
    """The arguments of SETTLE for a request that never ran."""
    return (demand.request_id, demand.key_id, demand.project_id, 0, 0, *period_starts(demand.request_id))


def period_starts(request_id: str) -> tuple[int, int, int]:
    """Day, week and month of a request, by their starts in Unix seconds, UTC.

    They follow from the id, as in the records: however late it is settled or rebuilt, it counts in the same period."""
    return starts_of_hour(created_ms(request_id) // 3_600_000)


@lru_cache(maxsize=64)
def starts_of_hour(hour: int) -> tuple[int, int, int]:
    """The starts of day, week and month in which this hour since 1970 lies, in Unix seconds."""
    now = hour * 3600
    return (
        budget_window("day", now).starts_at,
        budget_window("week", now).starts_at,
        budget_window("month", now).starts_at,
    )


@cache
def key_prefix(organization_id: str) -> str:
    """What all keys of an organization begin with."""
    return money_key(organization_id).removesuffix("money")


@lru_cache(maxsize=4096)
def packed_limits(limits: Limits) -> str:
    """Limits as the scripts take them; "" for none."""
    budget = limits.budget_nanos
    rates = (limits.requests_per_minute, limits.tokens_per_minute, limits.requests_per_day, limits.concurrency)
    if budget is None and rates == (None, None, None, None):
        return ""
    numbers = ["" if number is None else str(number) for number in (*rates, budget)]
    return ",".join([*numbers, limits.budget_period])


def _nanos_of(packed: bytes) -> int:
    return int(packed.partition(b"|")[0])


def _allowance(numbers: list[int]) -> Allowance:
    requests, tokens = numbers[0:3], numbers[3:6]
    return Allowance(
        requests=Window(*requests) if requests[0] >= 0 else None,
        tokens=Window(*tokens) if tokens[0] >= 0 else None,
        left_nanos=numbers[6],
    )
