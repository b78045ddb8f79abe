"""What every change of a policy does last."""

from django.db import transaction

from apps.accounts.models import User
from apps.core.changes import announce_on_commit
from apps.policies.models import DataPolicy


def save_data_policy(policy: DataPolicy, *, user: User | None) -> None:
    """Keep where an organization's prompts may go. It holds within a second."""
    with transaction.atomic():
        policy.changed_by = user
        policy.save()
        announce_policy(policy.organization_id)


def announce_policy(organization_id: str) -> None:
    """Once the current transaction has committed: gateways read the keys of this organization again before their
    next use, so that the new policy holds within a second."""
    announce_on_commit(f"keys:{organization_id}")
