"""The price book as the data path knows it: which rule changes a list price for an organization. Pure integers."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec

from apps.catalog.contracts import BUCKETS, Price, PriceVariant, Rates
from apps.core.money import round_half_even

PERCENT_UNIT: Final = 1_000_000
"""100 %: a change of 1 % is 10 000, so percentages have four decimal places."""
ALL_MODELS: Final = ""
EVERYBODY: Final = ""
DEFAULT_FEE_PPM: Final = 50_000
"""5 %: what a request with an organization's own provider key costs while the operator has said nothing else."""
R = TypeVar("R", Price, PriceVariant)
_AMOUNTS: Final = (*BUCKETS, "per_request", "per_image")


class BookRule(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the prices of one organization differ from the list, from `starts_at` (Unix seconds) on.

    Either `fixed` replaces the list price with all of its variants, or `change` is added to each amount of it, in
    parts of PERCENT_UNIT: -100_000 is a discount of 10 %, 200_000 a markup of 20 %. `model_id` "" is every model."""

    rule_id: str
    organization_id: str
    model_id: str
    starts_at: float
    change: int = 0
    fixed: Rates | None = None

    def applied_to(self, price: Price) -> Price:
        """The price of the organization. Each amount is rounded once, half to even, to nano-USD per million tokens."""
        if self.fixed is not None:
            own = {name: getattr(self.fixed, name) for name in _AMOUNTS}
            return msgspec.structs.replace(price, rule_id=self.rule_id, variants=(), **own)
        variants = tuple(_changed(variant, self.change) for variant in price.variants)
        return msgspec.structs.replace(_changed(price, self.change), rule_id=self.rule_id, variants=variants)

    @property
    def is_change(self) -> bool:
        """Whether it is anything else than the way back to the list price."""
        return self.fixed is not None or self.change != 0

    def in_words(self) -> str:
        """`10 % discount`, `20 % markup`, `fixed price` or `list price`."""
        if not self.is_change:
            return "list price"
        if self.fixed is not None:
            return "fixed price"
        percent = f"{abs(self.change) / (PERCENT_UNIT // 100):.4f}".rstrip("0").rstrip(".")
        return f"{percent} % {'discount' if self.change < 0 else 'markup'}"


class FeeRule(msgspec.Struct, frozen=True):
    """What requests with an organization's own provider key cost from `starts_at` (Unix seconds) on.

    `ppm` parts per million of what the organization would pay without one. `organization_id` "" is everybody."""

    organization_id: str
    starts_at: float
    ppm: int


def as_fee(price: Price, ppm: int) -> Price:
    """The price of the same request with an own provider key: each amount rounded once, half to even, as by a rule."""
    variants = tuple(_changed(variant, ppm - PERCENT_UNIT) for variant in price.variants)
    return msgspec.structs.replace(_changed(price, ppm - PERCENT_UNIT), variants=variants, fee_ppm=ppm)


class PriceBook:
    """The rules of all organizations. A rule for a model goes before one for all; of each kind the latest counts."""

    def __init__(self, rules: Iterable[BookRule] = (), fees: Iterable[FeeRule] = ()) -> None:
        self._fees = sorted(fees, key=lambda fee: -fee.starts_at)
        self._fee_prices: dict[tuple[str, int, int], Price] = {}
        self._rules: dict[tuple[str, str], list[BookRule]] = defaultdict(list)
        for rule in sorted(rules, key=lambda rule: -rule.starts_at):
            self._rules[rule.organization_id, rule.model_id].append(rule)
        self._applied: dict[tuple[str, int], Price] = {}

    def price_for(self, organization_id: str, model_id: str, price: Price, *, moment: float) -> Price:
        """What the organization pays at `moment` (Unix seconds) where the list says `price`."""
        if not self._rules:
            return price
        rule = self.rule_for(organization_id, model_id, moment=moment)
        if rule is None:
            return price
        known = self._applied.get((rule.rule_id, price.version_id))
        if known is None:
            known = self._applied[rule.rule_id, price.version_id] = rule.applied_to(price)
        return known

    def fee_ppm(self, organization_id: str, *, moment: float) -> int:
        """The fee in force at `moment` (Unix seconds): the organization's own rule, else everybody's, else 5 %."""
        for owner in (organization_id, EVERYBODY):
            for fee in self._fees:
                if fee.organization_id == owner and fee.starts_at <= moment:
                    return fee.ppm
        return DEFAULT_FEE_PPM

    def fee_for(self, organization_id: str, price: Price, *, moment: float) -> Price:
        """What the organization pays with its own provider key where `price` is what it pays without one."""
        ppm = self.fee_ppm(organization_id, moment=moment)
        name = (price.rule_id, price.version_id, ppm)
        known = self._fee_prices.get(name)
        if known is None:
            known = self._fee_prices[name] = as_fee(price, ppm)
        return known

    def rule_for(self, organization_id: str, model_id: str, *, moment: float) -> BookRule | None:
        """The rule in force at `moment` (Unix seconds), None for the list price."""
        for name in (model_id, ALL_MODELS):
            for rule in self._rules.get((organization_id, name), ()):
                if rule.starts_at <= moment:
                    return rule
        return None

    def starts(self, organization_id: str, model_id: str) -> list[float]:
        """When rules that concern the model begin for the organization, in Unix seconds, in order."""
        names = (model_id, ALL_MODELS)
        return sorted({rule.starts_at for name in names for rule in self._rules.get((organization_id, name), ())})


def at_share(price: Price, share_ppm: int | None) -> Price:
    """The price of an answer out of the response cache: `share_ppm` parts per million of each amount, rounded as those
    of a rule. None is no such answer: the price itself."""
    if share_ppm is None:
        return price
    variants = tuple(_changed(variant, share_ppm - PERCENT_UNIT) for variant in price.variants)
    return msgspec.structs.replace(_changed(price, share_ppm - PERCENT_UNIT), variants=variants)


def _changed(rates: R, change: int) -> R:
    amounts: dict[str, Any] = {}
    for name in _AMOUNTS:
        amount = getattr(rates, name)
        amounts[name] = None if amount is None else round_half_even(amount * (PERCENT_UNIT + change), PERCENT_UNIT)
    return msgspec.structs.replace(rates, **amounts)
