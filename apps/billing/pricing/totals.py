"""What a change of price does to the bills of a window, added up by organization."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from apps.accounts.models import Organization


@dataclass(slots=True)
class Change:
    """Of one organization, or of all: requests, and their costs before and after, in nano-USD.

    `changed` counts the requests of which the cost differs; `capped` those that would cost more than was held for
    them, by `uncharged_nanos` in all."""

    requests: int = 0
    changed: int = 0
    before_nanos: int = 0
    after_nanos: int = 0
    capped: int = 0
    uncharged_nanos: int = 0

    @property
    def difference_nanos(self) -> int:
        """Above zero the organization pays more."""
        return self.after_nanos - self.before_nanos

    def count(self, before_nanos: int, after_nanos: int, *, uncharged_nanos: int = 0) -> None:
        """Add one request. `uncharged_nanos` is what its hold leaves out of the cost after."""
        self.requests += 1
        self.changed += before_nanos != after_nanos
        self.before_nanos += before_nanos
        self.after_nanos += after_nanos
        self.capped += uncharged_nanos > 0
        self.uncharged_nanos += uncharged_nanos


@dataclass(frozen=True)
class ChangeTable:
    """The changes of a window: (slug, change) by the size of the difference, largest first, and their sum."""

    rows: list[tuple[str, Change]] = field(default_factory=list)
    total: Change = field(default_factory=Change)
    unposted: int = 0
    """Live requests of the window that wait for posting, and so are not in it."""


def change_table(changes: dict[str, Change], *, unposted: int = 0) -> ChangeTable:
    """Changes by organization id, as a table. An organization that is gone stands there with its id."""
    slugs = dict(Organization.objects.filter(pk__in=changes).values_list("id", "slug"))
    rows = [(slugs.get(owner, owner), change) for owner, change in changes.items()]
    rows.sort(key=lambda row: (-abs(row[1].difference_nanos), row[0]))
    return ChangeTable(rows, _sum(change for _, change in rows), unposted)


def _sum(changes: Iterable[Change]) -> Change:
    total = Change()
    for change in changes:
        total.requests += change.requests
        total.changed += change.changed
        total.before_nanos += change.before_nanos
        total.after_nanos += change.after_nanos
        total.capped += change.capped
        total.uncharged_nanos += change.uncharged_nanos
    return total
