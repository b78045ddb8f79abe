"""Budgets that were reached by half, by four fifths and in full: once for each step, period and budget."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from apps.accounts.limits import effective_limits
from apps.accounts.models import Organization, Project
from apps.billing.alerts.raising import raise_alert
from apps.billing.alerts.spent import AllTime, Sums, spent_since
from apps.billing.models import Alert, AlertKind
from apps.core.limits import BudgetPeriod, Limits, budget_window, check_period, usd_text
from apps.core.money import format_usd
from apps.keys.models import ApiKey

STEPS: Final = (100, 80, 50)
"""Percent, the highest first: of several that are reached at once the highest is told."""
CHUNK: Final = 1_000
_ever: Final = AllTime()
_SPANS: Final = {"day": "today", "week": "this week", "month": "this month", "lifetime": "in all"}


@dataclass(frozen=True)
class Budget:
    """Somebody's budget. `owner` is the kind: key, project or organization."""

    organization_id: str
    owner: str
    owner_id: str
    name: str
    nanos: int
    period: BudgetPeriod


def reached_step(spent_nanos: int, budget_nanos: int) -> int | None:
    """The highest step that is reached; None below the first. A budget of 0 reaches none: it forbids. Pure."""
    if budget_nanos <= 0:
        return None
    return next((step for step in STEPS if spent_nanos * 100 >= budget_nanos * step), None)


def evaluate_budgets(organization_ids: Collection[str], now: datetime) -> None:
    """Raise what is due for these organizations, from what is posted.

    Budgets that were told of in full cost nothing more in their period, and a step that was told no write."""
    windows = [
        (budget, budget_window(budget.period, now.timestamp()).starts_at) for budget in _budgets(organization_ids)
    ]
    told = _told([_key(*window, step) for window in windows for step in STEPS])
    open_ones = [window for window in windows if _key(*window, max(STEPS)) not in told]
    for period in {budget.period for budget, _ in open_ones}:
        of_period = [(budget, starts_at) for budget, starts_at in open_ones if budget.period == period]
        spent = _spent({budget.organization_id for budget, _ in of_period}, of_period[0][1], now)
        for budget, starts_at in of_period:
            nanos = spent.get(budget.owner_id, 0)
            step = reached_step(nanos, budget.nanos)
            if step is not None and _key(budget, starts_at, step) not in told:
                _raise(budget, step, nanos, starts_at)


def _key(budget: Budget, starts_at: int, step: int) -> str:
    """The step of the budget in its period, as the key of its alert."""
    return f"budget.reached:{budget.owner_id}:{budget.period}:{starts_at}:{budget.nanos}:{step}"


def _told(keys: Sequence[str]) -> set[str]:
    """Those of the keys that have an alert."""
    told: set[str] = set()
    for start in range(0, len(keys), CHUNK):
        rows = Alert.objects.filter(dedupe_key__in=keys[start : start + CHUNK])
        told.update(rows.values_list("dedupe_key", flat=True))
    return told


def _budgets(organization_ids: Collection[str]) -> Iterable[Budget]:
    organizations = Organization.objects.filter(pk__in=organization_ids).select_related("plan")
    for organization in organizations:
        limits = effective_limits(organization)
        yield from _budget(organization.id, ("organization", organization.id, organization.name), limits)
    projects = Project.objects.filter(organization_id__in=organization_ids, budget_nanos__gt=0)
    for project in projects:
        yield from _budget(project.organization_id, ("project", project.id, project.name), project.limits)
    keys = ApiKey.objects.filter(organization_id__in=organization_ids, budget_nanos__gt=0, revoked_at=None)
    for key in keys:
        yield from _budget(key.organization_id, ("key", key.id, key.name), key.limits)


def _budget(organization_id: str, owner: tuple[str, str, str], limits: Limits) -> Iterable[Budget]:
    if limits.budget_nanos:
        yield Budget(organization_id, *owner, limits.budget_nanos, check_period(limits.budget_period))


def _spent(organization_ids: Collection[str], starts_at: int, now: datetime) -> Sums:
    """Nano-USD by id of key, project and organization since a whole UTC hour (Unix seconds); 0 is ever."""
    if starts_at == 0:
        return _ever.spent(organization_ids, now)
    return spent_since(organization_ids, datetime.fromtimestamp(starts_at, UTC))


def _raise(budget: Budget, step: int, spent_nanos: int, starts_at: int) -> Alert:
    whose = f"your {budget.owner}" if budget.owner == "organization" else f"the {budget.owner} “{budget.name}”"
    amounts = f"{usd_text(spent_nanos)} of {usd_text(budget.nanos)} USD"
    then = (
        "Requests are refused until the budget begins again or is raised."
        if step == 100
        else "When all is spent, requests are refused until the budget begins again or is raised."
    )
    if budget.period == "lifetime":
        then = then.replace("begins again or ", "")
    return raise_alert(
        budget.organization_id,
        AlertKind.BUDGET_REACHED,
        key=_key(budget, starts_at, step),
        subject=f"{step} % of the budget of {whose} is spent",
        text=f"{amounts} of the budget of {whose} were spent {_SPANS[budget.period]}. {then}",
        details={
            "owner": budget.owner,
            "owner_id": budget.owner_id,
            "owner_name": budget.name,
            "step_percent": step,
            "period": budget.period,
            "period_starts_at": datetime.fromtimestamp(starts_at, UTC).isoformat() if starts_at else None,
            "budget_nanos": budget.nanos,
            "budget_usd": format_usd(budget.nanos),
            "spent_nanos": spent_nanos,
            "spent_usd": format_usd(spent_nanos),
        },
    )
