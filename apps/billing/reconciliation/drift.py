"""Drift: what vendors say of a day and model, beside what our records say of the same requests.

Two comparisons are possible. Tokens: ours against the vendor's, which should agree. Money: what the vendor charges us
against what customers were charged at our prices. That is a margin, not an error; it is worth an alert when we pay
more than we charge, or pay for a model that no request of ours used.

What organizations' own provider keys served is on no bill of ours, so it is left out."""

from dataclasses import dataclass, field
from datetime import date
from typing import Final

from django.conf import settings
from django.db import connection
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind, VendorCost, VendorReport
from apps.billing.reconciliation.vendor_reports import words_of
from apps.core.money import NANOS_PER_USD, format_usd
from apps.usage.models import TOKEN_COLUMNS

ALL_MODELS: Final = "all models"
SMALLEST_NANOS: Final = NANOS_PER_USD // 100
"""Less than a cent of difference is never worth an alert."""
SMALLEST_TOKENS: Final = 1_000
NAMED: Final = 5

_TOKENS = " + ".join(TOKEN_COLUMNS)
_OURS = f"""
SELECT day, upstream_model, count(*), sum({_TOKENS})::bigint, sum(cost_nanos)::bigint
FROM usage_usagerecord WHERE provider = %s AND day BETWEEN %s AND %s AND NOT sandbox
    AND credential_id = ''
GROUP BY day, upstream_model
"""  # noqa: S608 - only constants of other files


@dataclass(slots=True)
class Drift:
    """One model on one day at one provider; None where a side says nothing. Money in nano-USD.

    `charged_nanos` is what customers were charged, `vendor_nanos` what the vendor charges us."""

    day: date
    provider: str
    model: str
    requests: int = 0
    our_tokens: int | None = None
    charged_nanos: int | None = None
    vendor_tokens: int | None = None
    vendor_nanos: int | None = None
    names: set[str] = field(default_factory=set)

    @property
    def token_drift(self) -> int | None:
        """The vendor's tokens less ours; None without both."""
        if self.vendor_tokens is None:
            return None
        return self.vendor_tokens - (self.our_tokens or 0)

    @property
    def margin_nanos(self) -> int | None:
        """What customers were charged less what the vendor charges; None without the vendor's figure."""
        if self.vendor_nanos is None:
            return None
        return (self.charged_nanos or 0) - self.vendor_nanos

    def reasons(self, percent: int) -> list[str]:
        """Why this is worth an alert, in sentences without a full stop; empty when it is not."""
        found = []
        ours, tokens = self.our_tokens or 0, self.token_drift
        if tokens is not None and abs(tokens) >= SMALLEST_TOKENS and abs(tokens) * 100 > percent * ours:
            found.append(f"the vendor counts {self.vendor_tokens} tokens, we {ours}")
        margin = self.margin_nanos
        if margin is not None and -margin >= SMALLEST_NANOS and -margin * 100 > percent * (self.charged_nanos or 0):
            vendor, customers = format_usd(self.vendor_nanos or 0), format_usd(self.charged_nanos or 0)
            found.append(f"the vendor charges {vendor} USD, customers were charged {customers} USD")
        return found


def read_drift(provider_id: str, first: date, last: date) -> list[Drift]:
    """Every model on every day from `first` to `last` of which either side says anything, newest day first.

    Where the vendor does not name models, the whole day is compared."""
    rows: dict[tuple[date, tuple[str, ...]], Drift] = {}
    totals: dict[date, Drift] = {}
    with connection.cursor() as cursor:
        cursor.execute(_OURS, [provider_id, first, last])
        for day, model, requests, tokens, cost in cursor.fetchall():
            row = rows.setdefault((day, words_of(model)), Drift(day, provider_id, model))
            total = totals.setdefault(day, Drift(day, provider_id, ALL_MODELS))
            for one in (row, total):
                one.requests += requests
                one.our_tokens = (one.our_tokens or 0) + tokens
                one.charged_nanos = (one.charged_nanos or 0) + cost
                one.names.add(model)
    whole_days: dict[date, Drift] = {}
    for said in VendorCost.objects.filter(provider_id=provider_id, day__range=(first, last)):
        if said.model:
            row = rows.setdefault((said.day, words_of(said.model)), Drift(said.day, provider_id, said.model))
        else:
            row = totals.get(said.day) or Drift(said.day, provider_id, ALL_MODELS)
            whole_days[said.day] = totals[said.day] = row
        _add(row, said)
    return sorted([*rows.values(), *whole_days.values()], key=lambda row: (-row.day.toordinal(), row.model))


def warn_of_drift(report: VendorReport) -> None:
    """Alert the operator, once for a report, of drift beyond CRUN_VENDOR_DRIFT_PERCENT on days that are over."""
    percent = settings.VENDOR_DRIFT_PERCENT
    today = timezone.now().date()
    found = [
        f"{row.day} {row.model}: {'; '.join(reasons)}"
        for row in read_drift(report.provider_id, report.first_day, report.last_day)
        if row.day < today and (reasons := row.reasons(percent))
    ]
    if found:
        more = f" And {len(found) - NAMED} more." if len(found) > NAMED else ""
        raise_alert(
            None,
            AlertKind.VENDOR_DRIFT,
            key=f"vendor.drift:{report.digest}",
            subject=f"{report.provider_id} and our records differ on {len(found)} days and models",
            text=". ".join(found[:NAMED]) + "." + more,
            details={"provider": report.provider_id, "report": report.digest, "found": len(found)},
        )


def _add(row: Drift, said: VendorCost) -> None:
    if said.cost_nanos is not None:
        row.vendor_nanos = (row.vendor_nanos or 0) + said.cost_nanos
    counts = (said.input_tokens, said.cache_read_tokens, said.cache_write_tokens, said.output_tokens)
    if any(count is not None for count in counts):
        row.vendor_tokens = (row.vendor_tokens or 0) + sum(count or 0 for count in counts)
