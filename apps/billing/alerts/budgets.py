"""Budgets that were reached by half, by four fifths and in full: once for each step, period and budget."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q, Sum

from apps.accounts.limits import effective_limits
from apps.accounts.models import Organization, Project
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertKind
from apps.core.limits import BudgetPeriod, Limits, budget_window, check_period, usd_text
from apps.core.money import format_usd
from apps.keys.models import ApiKey
from apps.usage.models import UsageRollup

STEPS: Final = (100, 80, 50)
"""Percent, the highest first: of several that are reached at once the highest is told."""
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
    """Raise what is due for these organizations, from what is posted."""
    budgets = list(_budgets(organization_ids))
    for period in {budget.period for budget in budgets}:
        of_period = [budget for budget in budgets if budget.period == period]
        starts_at = budget_window(period, now.timestamp()).starts_at
        spent = _spent({budget.organization_id for budget in of_period}, starts_at)
        for budget in of_period:
            nanos = spent[budget.owner_id]
            step = reached_step(nanos, budget.nanos)
            if step is not None:
                _raise(budget, step, nanos, starts_at)


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


def _spent(organization_ids: Collection[str], starts_at: int) -> dict[str, int]:
    """Nano-USD by id of key, project and organization since a whole UTC hour (Unix seconds)."""
    since = Q() if starts_at == 0 else Q(hour__gte=datetime.fromtimestamp(starts_at, UTC))
    rows: Iterable[Any] = (
        UsageRollup.objects.filter(since, organization_id__in=organization_ids, sandbox=False)
        .values_list("organization_id", "project_id", "key_id")
        .annotate(cost=Sum("cost_nanos"))
        .order_by()
    )
    spent: dict[str, int] = defaultdict(int)
    for organization_id, project_id, key_id, cost in rows:
        for owner_id in (organization_id, project_id, key_id):
            spent[owner_id] += int(cost)
    return spent


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
        key=f"budget.reached:{budget.owner_id}:{budget.period}:{starts_at}:{budget.nanos}:{step}",
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
