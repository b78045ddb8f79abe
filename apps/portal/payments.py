"""What the portal shows and asks about payments: forms for credit and automatic top-up, and the words for states."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.conf import settings
from django.db.models import Q, Sum

from apps.accounts.models import Organization
from apps.billing.models import AutoTopUp, Payment, PaymentKind, PaymentMethod, PaymentStatus
from apps.billing.payments.auto_top_ups import Terms, spent_this_month
from apps.billing.payments.cards import cards_of
from apps.billing.payments.providers import cards_are_accepted
from apps.billing.payments.top_ups import TopUp
from apps.core.amount_fields import AmountField
from apps.core.money import nanos_from_usd, usd_from_nanos

PAYMENTS_SHOWN: Final = 20
KIND_WORDS: Final = {
    PaymentKind.TOP_UP: "Card payment",
    PaymentKind.AUTO_TOP_UP: "Automatic top-up",
    PaymentKind.BANK_TRANSFER: "Bank transfer",
}
STATUS_WORDS: Final = {
    PaymentStatus.PENDING: ("Not confirmed yet", "badge-warning"),
    PaymentStatus.PAID: ("Paid", "badge-success"),
    PaymentStatus.FAILED: ("Failed", "badge-error"),
    PaymentStatus.EXPIRED: ("Not paid", ""),
}


def _usd(label: str, *, low: int = 0, high: int = 999_999, help_text: str = "") -> AmountField:
    return AmountField(
        label=label,
        min_value=Decimal(low),
        max_value=Decimal(high),
        decimal_places=2,
        help_text=help_text,
        widget=forms.NumberInput(attrs={"inputmode": "decimal", "step": "0.01", "autocomplete": "off"}),
    )


class TopUpForm(forms.Form):
    """How much credit to buy, and whether the card may be kept."""

    save_card = forms.BooleanField(label="Save the card for later and for automatic top-up", required=False)

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # handed through as they came
        low, high = settings.TOP_UP_MIN_USD, settings.TOP_UP_MAX_USD
        self.fields["amount"] = _usd("Amount in USD", low=low, high=high, help_text=f"From ${low} to ${high:,}.")
        self.order_fields(["amount", "save_card"])

    def wanted(self, *, actor: str) -> TopUp:
        """What a valid form asks for."""
        return TopUp(nanos_from_usd(self.cleaned_data["amount"]), save_card=self.cleaned_data["save_card"], actor=actor)


class AutoTopUpForm(forms.Form):
    """When to charge which card, and how much at most in a month."""

    def __init__(self, organization: Organization, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # handed through as they came
        low, high = settings.TOP_UP_MIN_USD, settings.TOP_UP_MAX_USD
        self.fields["threshold"] = _usd("When credit is below, in USD")
        self.fields["amount"] = _usd(
            "Buy credit for, in USD", low=low, high=high, help_text=f"From ${low} to ${high:,}."
        )
        self.fields["ceiling"] = _usd("At most in a month, in USD", help_text="A month begins on the 1st, 00:00 UTC.")
        self.fields["card"] = forms.ChoiceField(choices=[(card.id, str(card)) for card in cards_of(organization.id)])

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        amount, ceiling = cleaned.get("amount"), cleaned.get("ceiling")
        if amount is not None and ceiling is not None and ceiling < amount:
            self.add_error("ceiling", "This allows not even one top-up.")
        return cleaned

    def terms(self) -> Terms:
        """What a valid form asks for."""
        chosen = self.cleaned_data
        return Terms(
            threshold_nanos=nanos_from_usd(chosen["threshold"]),
            amount_nanos=nanos_from_usd(chosen["amount"]),
            monthly_ceiling_nanos=nanos_from_usd(chosen["ceiling"]),
            card_id=chosen["card"],
        )


@dataclass(frozen=True)
class PaymentRow:
    """A payment as the table shows it."""

    payment: Payment
    kind: str
    status: str
    badge: str
    refunded_nanos: int


def payment_row(payment: Payment, refunded_nanos: int = 0) -> PaymentRow:
    """The payment with words for what it is."""
    status, badge = STATUS_WORDS[PaymentStatus(payment.status)]
    return PaymentRow(payment, KIND_WORDS[PaymentKind(payment.kind)], status, badge, refunded_nanos)


def payments_context(organization: Organization) -> dict[str, Any]:
    """All that `portal/billing/_payments.html` shows."""
    alive = Sum("refunds__amount_nanos", filter=~Q(refunds__status="failed"))
    payments = Payment.objects.for_organization(organization.id).annotate(refunded=alive).select_related("card")
    terms = AutoTopUp.objects.for_organization(organization.id).select_related("card").first()
    return {
        "cards_are_accepted": cards_are_accepted(),
        "top_up_form": TopUpForm(prefix="top_up"),
        "auto_form": AutoTopUpForm(organization, prefix="auto", initial=_initial(terms)),
        "auto_top_up": terms,
        "auto_spent_nanos": spent_this_month(organization.id) if terms else 0,
        "cards": cards_of(organization.id),
        "payments": [payment_row(payment, payment.refunded or 0) for payment in payments[:PAYMENTS_SHOWN]],
    }


def card_of(organization: Organization, card_id: str) -> PaymentMethod | None:
    """A saved card of the organization."""
    return next((card for card in cards_of(organization.id) if card.id == card_id), None)


def _initial(terms: AutoTopUp | None) -> dict[str, Any]:
    if terms is None:
        return {"threshold": Decimal(10), "amount": Decimal(50), "ceiling": Decimal(500)}
    return {
        "threshold": _cents(terms.threshold_nanos),
        "amount": _cents(terms.amount_nanos),
        "ceiling": _cents(terms.monthly_ceiling_nanos),
        "card": terms.card_id,
    }


def _cents(nanos: int) -> Decimal:
    return usd_from_nanos(nanos).quantize(Decimal("0.01"))
