"""How each route has done lately, as this worker saw it: whether to leave it alone, how fast it is; and how many
retries all of them may be given. No I/O.

A route that fails FAILURES_TO_REST times in a row rests; then one request at a time tries it, until one succeeds. What
its upstream says in Retry-After is honoured too. Nobody is left without a route: `routing.usable_first` only orders."""

import time
from collections.abc import Callable
from typing import Final

from apps.catalog.contracts import Target
from apps.gateway.errors import UPSTREAM_FAILED, UPSTREAM_OVERLOADED, UPSTREAM_TIMEOUT, GatewayError
from apps.gateway.routing.affinity import Affinity, Sessions
from apps.gateway.routing.measures import RouteMeasures
from apps.usage.contracts import Outcome, RequestClosed

FAILURES_TO_REST: Final = 5
FIRST_REST_S: Final = 15.0
LONGEST_REST_S: Final = 30.0
"""A route whose trial fails rests twice as long as before, up to this."""
TRIAL_S: Final = 30.0
"""A trial that has not ended after so long does not keep the next one waiting."""
LONGEST_RETRY_AFTER_S: Final = 60.0
SHARE_OF_LATEST: Final = 0.1
"""Of the latest request in the averages."""
RETRY_SHARE: Final = 0.1
LEAST_RETRIES: Final = 10
RETRY_WINDOW_S: Final = 10.0
MOST_ROUTES: Final = 10_000
MOST_OWN_ROUTES: Final = 10_000
"""Of organizations' own provider keys; they are counted apart, so that nobody's keys push out what all others use."""
_BROKEN_LATER: Final = (UPSTREAM_FAILED.code, UPSTREAM_TIMEOUT.code)

Clock = Callable[[], float]


class RouteHealth:
    """One route: a provider's id with the model that it is asked for."""

    __slots__ = (
        "_clock",
        "_rest_s",
        "_rest_until",
        "_trial_until",
        "_troubled",
        "failures",
        "is_broken",
        "is_troubled",
        "latency_ms",
        "measures",
        "tokens_per_s",
        "uptime",
    )  # fmt: skip

    def __init__(self, troubled: set["RouteHealth"], clock: Clock = time.monotonic) -> None:
        """`troubled` has this object in it while there is something to look at before the route is used."""
        self._clock = clock
        self._troubled = troubled
        self._rest_s = 0.0
        self._rest_until = 0.0
        self._trial_until = 0.0
        self.failures = 0
        """In a row."""
        self.is_broken = False
        """It rests, or must show that it can answer again."""
        self.is_troubled = False
        """It is in `troubled`."""
        self.uptime = 1.0
        """The share of requests that it answered; later ones count more."""
        self.latency_ms = 0.0
        """To the first byte, on average; 0 while nothing is known."""
        self.tokens_per_s = 0.0
        """Output on average; 0 while nothing is known."""
        self.measures = RouteMeasures(clock)

    @property
    def rests_until(self) -> float:
        """By its clock: before that only a request that has no other route goes there."""
        return max(self._rest_until, self._trial_until) if self.is_broken else self._rest_until

    @property
    def is_resting(self) -> bool:
        return self._clock() < self.rests_until

    def begin(self) -> None:
        """A request goes there now. While it is broken that is its trial: others stay away until it has ended."""
        if self.is_broken:
            self._trial_until = self._clock() + TRIAL_S

    def answered(self) -> None:
        """An answer has begun. A broken route is whole again, but for one more failure."""
        if self.is_broken:
            self.is_broken = False
            self.failures = FAILURES_TO_REST - 1

    def failed(self, error: GatewayError | None = None) -> None:
        """It could not be used, or its answer broke off."""
        now = self._clock()
        self.failures += 1
        self.measures.note_failed()
        self.uptime -= SHARE_OF_LATEST * self.uptime
        self._troubled.add(self)
        self.is_troubled = True
        if self.is_broken and now < self._rest_until:
            return  # it was asked before it began to rest, or for want of another route
        if self.failures >= FAILURES_TO_REST:
            self.is_broken = True
            self._rest_s = min(2 * self._rest_s or FIRST_REST_S, LONGEST_REST_S)
            self._rest_until = now + self._rest_s
            self._trial_until = 0.0
        if error is not None and error.kind is UPSTREAM_OVERLOADED:
            pause_s = min(error.retry_after_ms / 1000, LONGEST_RETRY_AFTER_S)
            self._rest_until = max(self._rest_until, now + pause_s)

    def ended(self, closed: RequestClosed) -> None:
        """A request whose answer had begun has ended so."""
        if closed.outcome is Outcome.COMPLETED:
            if self.is_troubled:
                self._recover()
            self.uptime += SHARE_OF_LATEST * (1.0 - self.uptime)
            if closed.attempts:
                self.measures.note_answered()
            else:
                self._measure(closed)
        elif closed.outcome is Outcome.FAILED and closed.error_code in _BROKEN_LATER:
            self.failed()

    def _recover(self) -> None:
        self.failures = 0
        if not self.is_broken:
            self._rest_s = 0.0
            if not self.is_resting:
                self._troubled.discard(self)
                self.is_troubled = False

    def _measure(self, closed: RequestClosed) -> None:
        tokens = closed.tokens
        latency_ms = closed.duration_ms if closed.first_byte_ms is None else closed.first_byte_ms
        self.latency_ms += (latency_ms - self.latency_ms) * (SHARE_OF_LATEST if self.latency_ms else 1.0)
        output, rate = tokens.all_output, 0.0
        if output:
            taken_ms = closed.duration_ms - latency_ms if closed.opened.streamed else closed.duration_ms
            rate = 1000 * output / max(taken_ms, 1)
            self.tokens_per_s += (rate - self.tokens_per_s) * (SHARE_OF_LATEST if self.tokens_per_s else 1.0)
        self.measures.note_speed(latency_ms, rate)
        if not closed.estimated:
            self.measures.note_input(tokens.all_input, tokens.cache_read)


class RetryBudget:
    """No more retries than a tenth of the requests of the last seconds, but always LEAST_RETRIES."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._earlier = (0, 0)
        self._retries = 0
        self.requests = 0
        """Count every request here."""

    def take(self) -> bool:
        """Whether one more retry may be made; it counts as made."""
        age_s = self._clock() - self._since
        if age_s >= RETRY_WINDOW_S:
            self._earlier = (self.requests, self._retries) if age_s < 2 * RETRY_WINDOW_S else (0, 0)
            self._since += age_s
            self.requests = self._retries = 0
        requests, retries = self._earlier[0] + self.requests, self._earlier[1] + self._retries
        if retries >= max(LEAST_RETRIES, RETRY_SHARE * requests):
            return False
        self._retries += 1
        return True


class Upstreams:
    """All routes of one worker."""

    def __init__(self, clock: Clock = time.monotonic, *, secret: bytes = b"") -> None:
        """`secret` is what all workers know sessions again by."""
        self._clock = clock
        self.affinity = Affinity(secret)
        self.sessions = Sessions()
        self._routes: dict[tuple[str, str], RouteHealth] = {}
        self._own_routes: dict[tuple[str, str, str], RouteHealth] = {}
        self.troubled: set[RouteHealth] = set()
        """Routes that failed and have not answered since, with the operator's credential."""
        self.retries = RetryBudget(clock)

    def of(self, target: Target) -> RouteHealth:
        """The health of a route; a fresh one for a route that was never used.

        What an organization's own key meets is that key's alone: nobody else's requests are led by it."""
        if target.credential_id:
            return self._of_own(target)
        name = (target.provider, target.upstream_model)
        health = self._routes.get(name)
        if health is None:
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
                self.troubled.clear()
            health = self._routes[name] = RouteHealth(self.troubled, self._clock)
        return health

    def _of_own(self, target: Target) -> RouteHealth:
        name = (target.provider, target.upstream_model, target.credential_id)
        health = self._own_routes.get(name)
        if health is None:
            if len(self._own_routes) >= MOST_OWN_ROUTES:
                self._own_routes.clear()
            health = self._own_routes[name] = RouteHealth(set(), self._clock)
        return health
