"""What every change of a policy does last."""

from apps.core.changes import announce_on_commit


def announce_policy(organization_id: str) -> None:
    """Once the current transaction has committed: gateways read the keys of this organization again before their
    next use, so that the new policy holds within a second."""
    announce_on_commit(f"keys:{organization_id}")
