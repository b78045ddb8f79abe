"""What keys, projects and organizations spent since a moment, from the posted sums. Test traffic costs nothing."""

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import Q, Sum

from apps.usage.models import UsageRollup

RECENT: Final = timedelta(days=2)
"""What is older hardly changes: records arrive within seconds, and after a long failure within hours."""
MAX_REMEMBERED: Final = 2_000

Sums = Mapping[str, int]
"""Nano-USD by id of key, project and organization. Who is missing spent nothing."""


def spent_since(organization_ids: Collection[str], since: datetime) -> Sums:
    """What was spent since a whole UTC hour."""
    return _flat(_sums(organization_ids, Q(hour__gte=since)))


class AllTime:
    """What was spent ever, without adding up all of it each minute: what is older than RECENT is summed once a day for
    each organization that is asked for, and remembered in the process. A record that arrives later than that is
    counted from the next UTC day on."""

    def __init__(self) -> None:
        self._before: OrderedDict[str, tuple[datetime, Sums]] = OrderedDict()

    def spent(self, organization_ids: Collection[str], now: datetime) -> Sums:
        """What these organizations, their projects and keys have spent until now."""
        cut = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - RECENT
        known = {one: self._before.get(one, (None, {}))[0] == cut for one in organization_ids}
        older = _sums([one for one, is_known in known.items() if not is_known], Q(hour__lt=cut))
        total = defaultdict(int, spent_since(organization_ids, cut))
        for organization_id, is_known in known.items():
            sums = self._before[organization_id][1] if is_known else older.get(organization_id, {})
            self._remember(organization_id, cut, sums)
            for owner_id, nanos in sums.items():
                total[owner_id] += nanos
        while len(self._before) > MAX_REMEMBERED:  # those that were not asked for the longest
            self._before.popitem(last=False)
        return total

    def _remember(self, organization_id: str, cut: datetime, sums: Sums) -> None:
        self._before[organization_id] = (cut, sums)
        self._before.move_to_end(organization_id)


def _sums(organization_ids: Collection[str], when: Q) -> dict[str, dict[str, int]]:
    """For each organization what it, its projects and its keys spent: one grouped query."""
    spent: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    if not organization_ids:
        return spent
    rows: Iterable[Any] = (
        UsageRollup.objects.filter(when, organization_id__in=organization_ids, sandbox=False)
        .values_list("organization_id", "project_id", "key_id")
        .annotate(cost=Sum("cost_nanos"))
        .order_by()
    )
    for organization_id, project_id, key_id, cost in rows:
        for owner_id in (organization_id, project_id, key_id):
            spent[organization_id][owner_id] += int(cost)
    return spent


def _flat(sums: Mapping[str, Sums]) -> Sums:
    return {owner_id: nanos for of_one in sums.values() for owner_id, nanos in of_one.items()}
