"""Limits as their callers see them: headers that tell what is left, and errors that tell which limit said no. Pure."""

from datetime import datetime, timedelta
from typing import Final

from apps.billing.admission import Allowance, Demand, Lack, Refused, Window
from apps.core.limits import spoken, usd_text
from apps.core.money import format_usd
from apps.gateway.errors import (
    BALANCE_EXHAUSTED,
    KEY_BUDGET_SPENT,
    ORGANIZATION_BUDGET_SPENT,
    PROJECT_BUDGET_SPENT,
    RATE_LIMITED,
    REQUEST_OVER_RATE,
    ErrorKind,
    GatewayError,
)

_BUDGETS: Final = {
    "key": KEY_BUDGET_SPENT,
    "project": PROJECT_BUDGET_SPENT,
    "organization": ORGANIZATION_BUDGET_SPENT,
}


class LimitReached(GatewayError):
    """A refusal that knows what its caller has left."""

    is_of_model = False
    """Whether the limit is that of one model, so that another one may do."""

    def __init__(self, kind: ErrorKind, message: str, *, allowance: Allowance, retry_after_ms: int = 0) -> None:
        super().__init__(kind, message, retry_after_ms=retry_after_ms)
        self.allowance = allowance

    def headers(self) -> dict[str, str]:
        return {**super().headers(), **limit_headers(self.allowance)}


def refusal(refused: Refused, demand: Demand) -> LimitReached:
    """The error for a limit that said no: which one, whose, and whether and when trying again helps."""
    if refused.what in ("balance", "budget"):
        return _money_refusal(refused, demand)
    owner = f"this {refused.owner}" if refused.owner in ("key", "project") else "your organization"
    message = f"Too many requests: {owner} may have {refused.limit:,} {spoken(refused.what)}"
    if refused.owner == "model":
        message += f" of the model {demand.model}"
    if refused.what == "tokens_per_minute":
        message += f", and this request needs up to {demand.tokens:,}"
    if refused.what == "concurrency":
        message = f"Too many requests: {owner} may run {refused.limit:,} at a time"
    message += f". Try again in {_duration(refused.retry_ms)}."
    error = LimitReached(RATE_LIMITED, message, allowance=refused.allowance, retry_after_ms=refused.retry_ms)
    error.is_of_model = refused.owner == "model"
    return error


def end_of_money(lack: Lack) -> GatewayError:
    """The last event of a stream for whose rest there is no money."""
    if lack.what == "balance":
        kind, whose = BALANCE_EXHAUSTED, "your organization's credit"
    else:
        kind, whose = _BUDGETS[lack.owner], f"the {lack.owner}'s budget of {usd_text(lack.limit)} USD"
    message = f"The answer ends here, because {whose} does not cover more of it"
    if lack.retry_ms:
        message += "; running requests hold the rest until they end"
    return GatewayError(kind, f"{message}. What was sent is billed.", retry_after_ms=lack.retry_ms)


def check_rate_can_fit(demand: Demand) -> None:
    """Raises GatewayError for a request that alone needs more tokens than somebody allows in a minute."""
    owners = {
        "key": demand.key_limits, "project": demand.project_limits, "organization": demand.organization_limits,
        f"organization on {demand.model}": demand.model_limits,
    }  # fmt: skip
    for owner, limits in owners.items():
        rate = limits.tokens_per_minute
        if rate is not None and demand.tokens > rate:
            message = (
                f"This request needs up to {demand.tokens:,} tokens, and the {owner} may have {rate:,} tokens per"
                " minute. Send a shorter prompt or a smaller max_tokens."
            )
            raise GatewayError(REQUEST_OVER_RATE, message)


def limit_headers(allowance: Allowance) -> dict[str, str]:
    """`x-ratelimit-*` in OpenAI's form and what is left to spend, in USD; sandbox keys spend nothing."""
    headers = {} if allowance.left_nanos is None else {"x-crun-budget-remaining": format_usd(allowance.left_nanos)}
    for name, window in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if window is not None:
            headers |= _window_headers(name, window)
    return headers


def anthropic_limit_headers(allowance: Allowance, now: datetime) -> dict[str, str]:
    """`anthropic-ratelimit-*`: times of reset are in RFC 3339."""
    headers: dict[str, str] = {}
    for name, window in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if window is not None:
            reset = now + timedelta(milliseconds=window.reset_ms)
            headers |= {
                f"anthropic-ratelimit-{name}-limit": str(window.limit),
                f"anthropic-ratelimit-{name}-remaining": str(window.left),
                f"anthropic-ratelimit-{name}-reset": reset.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
    return headers


def _window_headers(name: str, window: Window) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(window.limit),
        f"x-ratelimit-remaining-{name}": str(window.left),
        f"x-ratelimit-reset-{name}": _duration(window.reset_ms),
    }


def _money_refusal(refused: Refused, demand: Demand) -> LimitReached:
    needed = f"This request may cost up to {usd_text(demand.least_nanos)} USD"
    left = f"{usd_text(refused.allowance.left_nanos or 0)} USD"
    if refused.what == "balance":
        kind, message = BALANCE_EXHAUSTED, f"{needed}, and your organization has {left} of credit left"
    else:
        kind = _BUDGETS[refused.owner]
        message = f"{needed}, and of the {refused.owner}'s budget of {usd_text(refused.limit)} USD {left} are left"
    if refused.retry_ms:
        message += "; running requests hold the rest until they end"
    return LimitReached(kind, f"{message}.", allowance=refused.allowance, retry_after_ms=refused.retry_ms)


def _duration(milliseconds: int) -> str:
    """As OpenAI writes it: `250ms`, `1s`, `6m0s`, rounded up."""
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    seconds = -(-milliseconds // 1000)
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
