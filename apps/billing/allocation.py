"""Which credit pays for what. Pure: integers of nano-USD in, moves out."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Move(NamedTuple):
    """An amount on a wallet: of one grant, or of no grant (a debt below zero, credit without an end above)."""

    amount_nanos: int
    grant_id: str | None


@dataclass
class Purse:
    """What a wallet holds: the rest of each open grant in the order of use, and what belongs to no grant.

    `loose_nanos` below zero is a debt. Every method changes the purse and returns the moves that say so on a wallet."""

    rests: dict[str, int] = field(default_factory=dict)
    loose_nanos: int = 0

    @property
    def debt_nanos(self) -> int:
        return max(0, -self.loose_nanos)

    def take(self, amount_nanos: int) -> list[Move]:
        """Take `amount_nanos` (> 0): from the grants in their order, then from no grant, down into debt."""
        moves = []
        for grant_id, rest in self.rests.items():
            used = min(rest, amount_nanos)
            if used:
                moves.append(Move(-used, grant_id))
                self.rests[grant_id] = rest - used
                amount_nanos -= used
        if amount_nanos:
            moves.append(Move(-amount_nanos, None))
            self.loose_nanos -= amount_nanos
        return moves

    def give(self, amount_nanos: int, grant_id: str | None) -> list[Move]:
        """Give `amount_nanos` (> 0) to a grant or to none; a debt is paid before anything can be used."""
        if grant_id is None:
            self.loose_nanos += amount_nanos
            return [Move(amount_nanos, None)]
        self.rests[grant_id] = self.rests.get(grant_id, 0) + amount_nanos
        return [Move(amount_nanos, grant_id), *self._pay_debt(grant_id)]

    def _pay_debt(self, grant_id: str) -> list[Move]:
        paid = min(self.debt_nanos, self.rests[grant_id])
        if not paid:
            return []
        self.rests[grant_id] -= paid
        self.loose_nanos += paid
        return [Move(-paid, grant_id), Move(paid, None)]


def give_back(taken: Sequence[Move], returned: Sequence[Move], amount_nanos: int) -> list[Move]:
    """How a refund of `amount_nanos` goes back to where a charge took it from, last taken first.

    `taken` are the charge's moves in their order, `returned` what earlier refunds gave back. The amount must not be
    larger than what is left of the charge."""
    already: dict[str | None, int] = {}
    for move in returned:
        already[move.grant_id] = already.get(move.grant_id, 0) + move.amount_nanos
    moves = []
    for move in reversed(taken):
        back = min(-move.amount_nanos - already.get(move.grant_id, 0), amount_nanos)
        if back > 0:
            moves.append(Move(back, move.grant_id))
            amount_nanos -= back
    return moves
