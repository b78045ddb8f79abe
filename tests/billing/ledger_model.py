"""What the ledger should do, told a second time in plain Python: for one organization, without a database."""

from dataclasses import dataclass, field


@dataclass
class ModelGrant:
    """Credit as the model knows it; `day` is when it ends, None for never."""

    id: str
    rank: tuple[int, int, int]
    amount: int
    day: int | None
    rest: int = 0


@dataclass
class ModelCharge:
    """A charge, nano by nano: from which grant each was taken, in order; None is credit without a grant, or debt."""

    id: str
    taken: list[ModelGrant | None]


@dataclass
class LedgerModel:
    """Every nano-dollar is handled alone, so that nothing here resembles the arithmetic under test."""

    grants: list[ModelGrant] = field(default_factory=list)
    charges: list[ModelCharge] = field(default_factory=list)
    loose: int = 0
    revenue: int = 0
    breakage: int = 0
    written_off: int = 0

    @property
    def balance(self) -> int:
        return self.loose + sum(grant.rest for grant in self.grants)

    @property
    def debt(self) -> int:
        return max(0, -self.loose)

    def give(self, grant: ModelGrant | None) -> None:
        """One nano for a grant, or for a debt that comes first; or one without a grant."""
        if grant is None or self.loose < 0:
            self.loose += 1
        else:
            grant.rest += 1

    def take(self) -> ModelGrant | None:
        """One nano from the first grant in the order of use that has one; else from what has no grant."""
        for grant in sorted(self.grants, key=lambda grant: grant.rank):
            if grant.rest:
                grant.rest -= 1
                return grant
        self.loose -= 1
        return None

    def grant(self, grant: ModelGrant) -> None:
        self.grants.append(grant)
        for _ in range(grant.amount):
            self.give(grant)

    def charge(self, charge_id: str, amount: int) -> None:
        self.charges.append(ModelCharge(charge_id, [self.take() for _ in range(amount)]))
        self.revenue += amount

    def refund(self, charge: ModelCharge, amount: int) -> None:
        for _ in range(amount):
            self.give(charge.taken.pop())
        self.revenue -= amount

    def adjust(self, amount: int) -> None:
        for _ in range(abs(amount)):
            if amount > 0:
                self.give(None)
            else:
                self.take()

    def expire(self, day: int) -> None:
        for grant in self.grants:
            if grant.day is not None and grant.day <= day:
                self.breakage += grant.rest
                grant.rest = 0

    def write_off(self) -> None:
        self.written_off += self.debt
        self.loose += self.debt
