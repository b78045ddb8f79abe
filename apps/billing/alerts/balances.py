"""Credit that runs low: told once each time that what may be spent falls to the mark or below it."""

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from apps.billing.alerts.raising import raise_alert
from apps.billing.ledger import balance_nanos, credit_limit_nanos
from apps.billing.models import AlertKind, AlertSettings, BillingAccount, LedgerAccount
from apps.core.limits import usd_text
from apps.core.money import format_usd


def evaluate_balances(organization_ids: Collection[str], now: datetime) -> None:
    """Look at all of these, and lock only where something changes."""
    balances = LedgerAccount.objects.filter(organization_id__in=organization_ids)
    known = dict(balances.values_list("organization_id", "balance_nanos"))
    limits = BillingAccount.objects.filter(organization_id__in=known)
    credit = dict(limits.values_list("organization_id", "credit_limit_nanos"))
    chosen = {row.organization_id: row for row in AlertSettings.objects.filter(organization_id__in=known)}
    for organization_id, balance in known.items():
        settings = chosen.get(organization_id) or AlertSettings(organization_id=organization_id)
        if _is_low(settings, balance + credit.get(organization_id, 0)) != (settings.low_since is not None):
            _cross(organization_id, now)


def _is_low(settings: AlertSettings, spendable_nanos: int) -> bool:
    return settings.low_balance_nanos is not None and spendable_nanos <= settings.low_balance_nanos


@transaction.atomic
def _cross(organization_id: str, now: datetime) -> None:
    """Look again under the lock of the settings: of several who saw the crossing one tells of it."""
    AlertSettings.objects.get_or_create(organization_id=organization_id)
    settings: AlertSettings = AlertSettings.objects.select_for_update(of=("self",)).get(pk=organization_id)
    balance = balance_nanos(organization_id)
    spendable = balance + credit_limit_nanos(organization_id)
    is_low = _is_low(settings, spendable)
    if is_low == (settings.low_since is not None):
        return
    settings.low_since = now if is_low else None
    settings.save(update_fields=["low_since"])
    if is_low:
        _tell(settings, balance, spendable)


def _tell(settings: AlertSettings, balance: int, spendable: int) -> None:
    mark = settings.low_balance_nanos or 0
    moment = settings.low_since or timezone.now()
    then = "Add credit so that requests go on." if spendable > 0 else "Requests are refused until credit is added."
    raise_alert(
        settings.organization_id,
        AlertKind.CREDIT_LOW,
        key=f"credit.low:{settings.organization_id}:{moment.isoformat()}",
        subject=f"Your credit is low: {usd_text(spendable)} USD are left",
        text=f"{usd_text(spendable)} USD can still be spent, and your mark is {usd_text(mark)} USD. {then}",
        details={
            "balance_nanos": balance,
            "balance_usd": format_usd(balance),
            "spendable_nanos": spendable,
            "spendable_usd": format_usd(spendable),
            "threshold_nanos": mark,
            "threshold_usd": format_usd(mark),
        },
    )
