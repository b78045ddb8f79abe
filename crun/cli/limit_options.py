"""The options of commands that set limits, and what they make of the limits an owner has."""

from collections.abc import Callable
from typing import Any, Final

import click
import msgspec

from apps.core.errors import InvalidInput
from apps.core.limits import (
    BUDGET_PERIODS,
    BUDGET_WORDS,
    MAX_RATE,
    RATES,
    Limits,
    UsdWords,
    budget_from_usd,
    check_limits,
    spoken,
    usd_text,
)

LIFTED: Final = "none"
"""What somebody types, and what an option's value is, to lift a limit."""


class Usd(click.ParamType):  # type: ignore[type-arg]  # a generic in newer versions of click only
    """An amount in USD, exact, as nano-USD; or `none`."""

    name = "usd"

    def __init__(self, words: UsdWords = BUDGET_WORDS) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        try:
            return LIFTED if value == LIFTED else budget_from_usd(value, self.words)
        except InvalidInput as error:
            self.fail(error.message, param, ctx)


class Rate(click.IntRange):
    """A number from 1; or `none`."""

    def __init__(self) -> None:
        super().__init__(1, MAX_RATE)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return LIFTED if value == LIFTED else super().convert(value, param, ctx)


_OPTIONS = [
    click.option("--budget-usd", "budget_nanos", type=Usd(), metavar="USD", help="How much may be spent, as 12.50."),
    click.option("--budget-period", type=click.Choice(BUDGET_PERIODS), help="How often the budget begins again (UTC)."),
    click.option("--rpm", "requests_per_minute", type=Rate(), metavar="N", help="Requests per minute."),
    click.option("--tpm", "tokens_per_minute", type=Rate(), metavar="N", help="Tokens per minute, in and out."),
    click.option("--rpd", "requests_per_day", type=Rate(), metavar="N", help="Requests per day (UTC)."),
    click.option("--concurrency", type=Rate(), metavar="N", help="Requests running at the same time."),
]


def limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of all limits; it passes what it got to `changed_limits`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def changed_limits(limits: Limits, options: dict[str, Any]) -> Limits:
    """The limits with those options that were given; `none` lifts one, and a budget takes its period along.

    Raises click.UsageError for a period without a budget."""
    given = {name: value for name, value in options.items() if value is not None}
    changed = msgspec.structs.replace(
        limits, **{name: None if value == LIFTED else value for name, value in given.items()}
    )
    if changed.budget_nanos is None:
        if "budget_period" in given:
            raise click.UsageError("--budget-period says when a budget begins again: give --budget-usd, too.")
        changed = msgspec.structs.replace(changed, budget_period="lifetime")
    return check_limits(changed)


def limit_lines(limits: Limits) -> list[str]:
    """One line for each limit, set or not: its name, a tab, its value."""
    budget = "none"
    if limits.budget_nanos is not None:
        budget = f"{usd_text(limits.budget_nanos)} USD, {limits.budget_period}"
    rates = [(spoken(name), getattr(limits, name)) for name in RATES]
    return [f"budget\t{budget}", *(f"{name}\t{'none' if value is None else value}" for name, value in rates)]
