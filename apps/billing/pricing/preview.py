"""What a new price would have made of the traffic of a day. Nothing is written."""

from collections import defaultdict
from datetime import UTC, date, datetime, time, timedelta

from django.db import transaction
from django.utils import timezone

from apps.billing.pricing.loading import load_book
from apps.billing.pricing.records import Window, billed_in, unposted_in
from apps.billing.pricing.totals import Change, ChangeTable, change_table
from apps.catalog.contracts import Price


def yesterday() -> date:
    """The last whole day in UTC."""
    return (timezone.now() - timedelta(days=1)).astimezone(UTC).date()


@transaction.atomic
def preview_price(model_id: str, price: Price, day: date) -> ChangeTable:
    """What the day's posted live traffic (UTC) of the model cost, and would have cost at this list price.

    Organizations keep the rules of their price books that were in force at each request, so that only the list price
    differs. What was not billed because it went beyond a hold is not counted at the new price either. Reads all
    records of the day, in bounded memory. Raises django.db.Error."""
    start = datetime.combine(day, time(), UTC)
    window = Window(model_id, start, start + timedelta(days=1))
    book = load_book()
    changes: dict[str, Change] = defaultdict(Change)
    for request in billed_in(window):
        own = book.price_for(request.organization_id, model_id, price, moment=request.began)
        after = max(0, request.at(own) - request.overage_nanos)
        changes[request.organization_id].count(request.cost_nanos, after)
    return change_table(changes, unposted=unposted_in(window))
