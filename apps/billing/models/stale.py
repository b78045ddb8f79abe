"""Which cached balances must still be dropped, because the ledger changed."""

from django.db import models


class StaleBalance(models.Model):
    """Written with the change of the ledger, deleted once the cache was dropped after its commit.

    So a store that is away then, or a process that dies between commit and drop, leaves no stale balance for ever.
    The organization is named without a foreign key, as in the ledger."""

    organization_id = models.CharField(max_length=40)
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.organization_id} since {self.since}"
