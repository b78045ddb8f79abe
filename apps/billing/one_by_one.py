"""Periodic work row by row: one odd row is logged, waits longer each time, and never stops the others."""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind, OddRow
from apps.core.errors import DomainError

FIRST_WAIT: Final = timedelta(minutes=1)
"""After a failure, twice as long after the second one, and so on."""
MAX_TRIES: Final = 10
"""After some eight hours. Then the operator is told, and it is tried once a day."""
DAILY: Final = timedelta(days=1)
AWAY_IN_A_ROW: Final = 3
"""So many rows without an answer, one after the other, and it is not the row: the rest waits for the next run."""
log = logging.getLogger(__name__)


def waiting(work: str) -> QuerySet[OddRow, str]:
    """The rows that are not to be tried now, to leave them out of a query: `.exclude(pk__in=waiting(...))`."""
    return OddRow.objects.filter(work=work, next_attempt_at__gt=timezone.now()).values_list("subject", flat=True)


def one_by_one(
    work: str, subjects: Iterable[str], act: Callable[[str], object], *, away: type[DomainError] | None = None
) -> int:
    """Do `act` for each id but those that wait; returns for how many it did something (returned what is true).

    Whatever a row raises is logged and noted, and the next row has its turn. `away` is what an outside service raises
    that does not answer: it is noted, too, but never told to the operator, and raised again when it seems away for
    all."""
    later = set(waiting(work))
    known = set(OddRow.objects.filter(work=work).values_list("subject", flat=True))
    done = unanswered = 0
    for subject in [each for each in subjects if each not in later]:
        try:
            done += bool(act(subject))
        except Exception as error:
            is_away = away is not None and isinstance(error, away)
            unanswered = unanswered + 1 if is_away else 0
            _note(work, subject, error, is_away=is_away)
            if unanswered == AWAY_IN_A_ROW:
                raise
            continue
        unanswered = 0
        if subject in known:
            OddRow.objects.filter(work=work, subject=subject).delete()
    return done


def tell_operator(key: str, subject: str, text: str, details: Mapping[str, object]) -> None:
    """Alert the operator, once for a key, of something about payments that needs a person."""
    raise_alert(
        None, AlertKind.PAYMENT_REVIEW, key=f"payment.review:{key}"[:200], subject=subject, text=text, details=details
    )


@transaction.atomic
def _note(work: str, subject: str, error: Exception, *, is_away: bool) -> None:
    """When the row is tried again. Without a database this fails as well, and so ends the run."""
    words = error.message if isinstance(error, DomainError) else type(error).__name__
    where = {"work": work, "subject": subject}
    if is_away:
        log.warning("%s waits: %s", work, words, extra=where)
    else:
        log.error("%s failed for one row and goes on with the next", work, exc_info=error, extra=where)
    first = {"error": words[:300], "next_attempt_at": timezone.now()}
    OddRow.objects.get_or_create(work=work, subject=subject, defaults=first)
    row = OddRow.objects.select_for_update().get(work=work, subject=subject)
    row.tries += 1
    row.error = words[:300]
    many = row.tries >= MAX_TRIES
    wait = DAILY if many and not is_away else FIRST_WAIT * 2 ** min(row.tries - 1, MAX_TRIES - 1)
    row.next_attempt_at = timezone.now() + min(wait, DAILY)
    row.save()
    if many and not is_away:
        tell_operator(
            f"{work}:{subject}",
            f"{work} fails for {subject}",
            f"It failed {row.tries} times since {row.since:%Y-%m-%d %H:%M} UTC, the last time so: {words} The log has "
            f"more. It is tried again once a day.",
            where,
        )
