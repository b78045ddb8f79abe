"""The limits of organizations, projects and plans: what holds in the end, and changing them."""

from django.db import transaction

from apps.accounts.models import Organization, Plan, Project
from apps.core.changes import announce_on_commit
from apps.core.limit_fields import LIMIT_FIELDS, limit_columns
from apps.core.limits import RATES, Limits, check_limits
from apps.core.priorities import Priority, priority_of_organization


def merge(own: Limits, plan: Limits) -> Limits:
    """Each limit of `own`, and where it has none, the plan's. A budget and its period are one limit. Pure."""
    rates = {name: getattr(plan if getattr(own, name) is None else own, name) for name in RATES}
    budget = plan if own.budget_nanos is None else own
    return Limits(**rates, budget_nanos=budget.budget_nanos, budget_period=budget.budget_period)


def effective_limits(organization: Organization) -> Limits:
    """What holds for all keys of the organization together: its own limits, completed by its plan's."""
    return merge(organization.limits, organization.plan.limits) if organization.plan else organization.limits


def effective_priority(organization: Organization) -> Priority:
    """What the operator gave the organization: the most that one of its keys can have."""
    return priority_of_organization(organization.priority, organization.plan.priority if organization.plan else None)


@transaction.atomic
def set_limits(owner: Organization | Project | Plan, limits: Limits) -> None:
    """Give the owner these limits in place of those it has, in every gateway within a second.

    Raises InvalidInput for limits that cannot be."""
    for name, value in limit_columns(check_limits(limits)).items():
        setattr(owner, name, value)
    owner.save(update_fields=LIMIT_FIELDS)
    announce_limits()


@transaction.atomic
def assign_plan(organization: Organization, plan: Plan | None) -> None:
    """Put the organization on the plan, or on none, in every gateway within a second."""
    organization.plan = plan
    organization.save(update_fields=["plan"])
    announce_limits()


def announce_limits() -> None:
    """Once the current transaction has committed: any number of keys may have other limits now."""
    announce_on_commit("keys")
