"""What money should do, told a second time in plain Python: one organization, its requests, and what Redis may know."""

from dataclasses import dataclass, field

from apps.billing.admission import Demand
from apps.usage.contracts import RequestClosed, RequestOpened

NOWHERE = "nowhere"
HELD = "held"
CHARGED = "charged"


@dataclass
class ModelRequest:
    """A request from its hold to its end. Amounts are nano-USD; every token costs one."""

    id: str
    hold: int
    worker: int
    demand: Demand | None = None
    opened: RequestOpened | None = None
    closed: RequestClosed | None = None
    in_redis: str = HELD
    """Whether Redis holds money for it, has charged it, or does not know it."""
    delivered: int | None = None
    """Output of the last checkpoint."""
    is_orphan: bool = False
    """Its process died: whoever ships the journal ends it."""
    is_recorded: bool = False
    is_late: bool = False
    """It has ended and nobody has told Redis yet."""
    cost: int = 0

    def orphan_cost(self) -> int:
        """By the published table: nothing without output; else the input and the output of the last checkpoint."""
        assert self.opened is not None
        if not self.delivered:
            return 0
        return min(self.hold, self.opened.input_estimate + self.delivered)


@dataclass
class MoneyModel:
    """What was given, what was spent, and for whom something is held."""

    budget: int | None = None
    given: int = 0
    posted: int = 0
    slack: int = 0
    """What expired while requests held it: as much as that the balance may be short of what is held."""
    requests: dict[str, ModelRequest] = field(default_factory=dict)

    @property
    def held(self) -> int:
        return sum(request.hold for request in self.requests.values() if request.in_redis == HELD)

    @property
    def charged(self) -> int:
        return sum(request.cost for request in self.requests.values() if request.in_redis == CHARGED)

    @property
    def balance_in_redis(self) -> int:
        return self.given - self.charged

    @property
    def balance_in_ledger(self) -> int:
        return self.given - self.posted

    @property
    def room(self) -> int:
        """What a request may hold now: the tighter of balance and budget."""
        by_balance = self.balance_in_redis - self.held
        return by_balance if self.budget is None else min(by_balance, self.budget - self.charged - self.held)

    def admits(self, most: int, least: int) -> int | None:
        """What is held for a request; None when it is refused."""
        if most <= self.room:
            return most
        return self.room if least < most and least <= self.room else None

    def count_again(self) -> None:
        """Redis was rebuilt: what has ended is charged, what stands open in a journal is held, once each."""
        for request in self.requests.values():
            if request.closed is not None or request.is_recorded:
                request.in_redis = CHARGED
            elif request.opened is not None:
                request.in_redis = HELD

    def forget(self) -> None:
        """Redis was emptied: holds that stand in no journal are gone for good."""
        for request in self.requests.values():
            if request.opened is None:
                request.in_redis = NOWHERE

    def settle(self, request: ModelRequest) -> None:
        request.is_late = False
        request.in_redis = CHARGED

    def record(self, request_ids: set[str]) -> None:
        """These have records now, ended by their process or by recovery."""
        for request_id in request_ids:
            request = self.requests[request_id]
            if request.closed is None and not request.is_recorded:
                request.cost = request.orphan_cost()
            request.is_recorded = True

    def ship(self) -> None:
        """All that has ended is recorded and Redis is told, requests of dead processes included."""
        ended = [one for one in self.requests.values() if one.opened and (one.closed or one.is_orphan)]
        self.record({request.id for request in ended})
        for request in ended:
            self.settle(request)

    def die(self, worker: int) -> None:
        for request in self.requests.values():
            if request.worker == worker:
                request.is_orphan = request.closed is None
                request.is_late = False
