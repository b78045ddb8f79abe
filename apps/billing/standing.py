"""The language of the script that reads what a key has and has left: asked of Redis, so settled usage is in it."""

import time
from dataclasses import dataclass, replace
from typing import Any, Final

from apps.billing.admission import Allowance, Window, packed_limits, script, starts_of_hour
from apps.core.limits import Limits
from apps.core.scripts import Argument

LOOK: Final = script("look")
NOTHING_LEFT_TO_COUNT: Final = -1
"""The script's number where there is no such limit."""


@dataclass(frozen=True, slots=True)
class Looker:
    """The key that asks, and the limits that it is under."""

    organization_id: str
    key_id: str
    project_id: str
    key_limits: Limits
    project_limits: Limits
    organization_limits: Limits

    def arguments(self) -> tuple[Argument, ...]:
        """The arguments of LOOK. The periods are those of this moment, UTC."""
        limits = (self.key_limits, self.project_limits, self.organization_limits)
        starts = starts_of_hour(int(time.time()) // 3600)
        return (self.key_id, self.project_id, *starts, *(packed_limits(each) for each in limits))


@dataclass(frozen=True, slots=True)
class KeySpend:
    """What a key has spent, in nano-USD: in the running UTC day, week from Monday, month, and ever; and holds now."""

    held_nanos: int = 0
    day_nanos: int = 0
    week_nanos: int = 0
    month_nanos: int = 0
    lifetime_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What an organization has and one of its keys has left, in nano-USD; a request counts once it is settled.

    `used_nanos` is what the organization's requests cost as of now: with what re-ratings corrected.
    `key_left_nanos` is None for a key without a budget."""

    balance_nanos: int
    credit_limit_nanos: int
    held_nanos: int
    used_nanos: int
    key: KeySpend
    key_left_nanos: int | None
    allowance: Allowance

    @property
    def available_nanos(self) -> int:
        """What new requests can be admitted against."""
        return self.balance_nanos + self.credit_limit_nanos - self.held_nanos

    @property
    def credited_nanos(self) -> int:
        """All credit that ever came in, less what expired or was taken back."""
        return self.balance_nanos + self.used_nanos

    def without_money(self) -> "Standing":
        """What a sandbox key may see: its rates, and no figure of the organization's money."""
        return replace(
            self,
            balance_nanos=0,
            credit_limit_nanos=0,
            held_nanos=0,
            used_nanos=0,
            key=KeySpend(),
            key_left_nanos=None,
            allowance=self.allowance.without_money(),
        )


def read_standing(reply: list[Any]) -> Standing | None:
    """The answer of LOOK; None when the money state is not there."""
    if reply[0] != 1:
        return None
    balance, credit, held, *numbers = (int(number) for number in reply[1:])
    spend, used, budgets, requests, tokens = numbers[:5], numbers[5], numbers[6:9], numbers[9:12], numbers[12:15]
    left = [budget for budget in budgets if budget != NOTHING_LEFT_TO_COUNT]
    return Standing(
        balance_nanos=balance,
        credit_limit_nanos=credit,
        held_nanos=held,
        used_nanos=used,
        key=KeySpend(*spend),
        key_left_nanos=None if budgets[0] == NOTHING_LEFT_TO_COUNT else budgets[0],
        allowance=Allowance(
            requests=Window(*requests) if requests[0] != NOTHING_LEFT_TO_COUNT else None,
            tokens=Window(*tokens) if tokens[0] != NOTHING_LEFT_TO_COUNT else None,
            left_nanos=max(min([balance + credit - held, *left]), 0),
        ),
    )
