"""What people type into the forms of alerts, webhooks and the brake."""

from typing import Any, Final

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from apps.billing.alerts.addresses import MAX_URL_LENGTH, check_url
from apps.billing.models import AlertKind, AlertSettings
from apps.billing.models.alerts import CUSTOMER_KINDS
from apps.core.brake_fields import DEFAULT_MINUTES, MAX_MINUTES
from apps.core.errors import InvalidInput
from apps.core.limit_fields import UsdField, sentence
from apps.core.limits import BRAKE_WORDS, MARK_WORDS
from apps.core.name_fields import NameFormField
from apps.core.priorities import Priority

MAX_RECIPIENTS: Final = 10
KIND_WORDS: Final = {
    AlertKind.CREDIT_LOW: "Credit is low",
    AlertKind.BUDGET_REACHED: "A budget is spent by 50, 80 or 100 %",
    AlertKind.GRANT_EXPIRING: "Credit ends in 30, 7 or 1 days",
    AlertKind.AUTO_TOP_UP_FAILED: "An automatic top-up failed",
    AlertKind.SPEND_ANOMALY: "Spending is unusual",
    AlertKind.KEY_PAUSED: "A key was paused by its brake",
    AlertKind.INVOICE_ISSUED: "An invoice was issued",
    AlertKind.WEBHOOK_DISABLED: "A webhook endpoint was switched off",
}
KIND_CHOICES: Final = [(kind.value, KIND_WORDS[kind]) for kind in CUSTOMER_KINDS]


class AlertSettingsForm(forms.ModelForm):  # type: ignore[type-arg]  # Django's forms cannot be subscripted at run time
    """The mark of low credit, who gets e-mails, and of what."""

    low_balance_nanos = UsdField(
        label="Low credit, in USD",
        words=MARK_WORDS,
        required=False,
        help_text="You are told when what you can still spend falls to this or below. Empty: never.",
    )
    recipients = forms.CharField(
        label="E-mails go to",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text=f"One address on each line, up to {MAX_RECIPIENTS}. Empty: all owners and people of finance.",
    )
    mailed_kinds = forms.MultipleChoiceField(
        label="E-mails tell of",
        required=False,
        choices=KIND_CHOICES,
        widget=forms.CheckboxSelectMultiple,
        help_text="What is not ticked stands in the list all the same.",
    )

    class Meta:
        model = AlertSettings
        fields = ("low_balance_nanos",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial["recipients"] = "\n".join(self.instance.recipients)
        self.initial["mailed_kinds"] = [kind for kind, _ in KIND_CHOICES if kind not in self.instance.muted_kinds]

    def clean_recipients(self) -> list[str]:
        lines = self.cleaned_data["recipients"].replace(",", "\n").split("\n")
        addresses = sorted({line.strip() for line in lines} - {""})
        if len(addresses) > MAX_RECIPIENTS:
            raise ValidationError(f"Name at most {MAX_RECIPIENTS} addresses.")
        for address in addresses:
            try:
                validate_email(address)
            except ValidationError as error:
                raise ValidationError(f"“{address[:100]}” is no e-mail address.") from error
        return addresses

    def save(self, commit: bool = True) -> AlertSettings:
        """The settings; a mark that was changed is looked at anew by the next evaluation."""
        row: AlertSettings = self.instance
        row.recipients = self.cleaned_data["recipients"]
        row.muted_kinds = [kind for kind, _ in KIND_CHOICES if kind not in self.cleaned_data["mailed_kinds"]]
        columns = {name: getattr(row, name) for name in ("low_balance_nanos", "recipients", "muted_kinds")}
        AlertSettings.objects.update_or_create(organization=row.organization, defaults=columns)
        return row


class EndpointForm(forms.Form):
    """Where webhooks go, and which."""

    url = forms.CharField(
        label="URL",
        max_length=MAX_URL_LENGTH,
        widget=forms.URLInput(attrs={"placeholder": "https://hooks.example.com/crun", "autocomplete": "off"}),
        help_text="Begins with https:// and can be reached from the internet.",
    )
    description = NameFormField(label="Description", max_length=100, required=False)
    kinds = forms.MultipleChoiceField(
        label="Events",
        choices=[(kind, f"{words} ({kind})") for kind, words in KIND_CHOICES],
        widget=forms.CheckboxSelectMultiple,
        initial=[kind for kind, _ in KIND_CHOICES],
        error_messages={"required": "Choose at least one event."},
    )

    def clean_url(self) -> str:
        try:
            return check_url(self.cleaned_data["url"], allow_private=settings.WEBHOOKS_ALLOW_PRIVATE)
        except InvalidInput as error:
            raise ValidationError(sentence(error)) from error


class BrakeForm(forms.Form):
    """How fast a key may spend before it is paused."""

    brake_usd = UsdField(
        label="Pause above, in USD",
        words=BRAKE_WORDS,
        required=False,
        help_text="Spending more than this within the minutes below pauses the key. 0: never. Empty: as the plan says.",
    )
    brake_minutes = forms.IntegerField(
        label="Within minutes",
        min_value=1,
        max_value=MAX_MINUTES,
        initial=DEFAULT_MINUTES,
        help_text=f"1 to {MAX_MINUTES}.",
    )
    priority = forms.TypedChoiceField(
        required=False,
        coerce=int,
        empty_value=None,
        help_text="When there is more to do than can be done, requests of lower priority are sent away first.",
    )

    def __init__(self, *args: Any, most: Priority, **options: Any) -> None:
        """`most` is the organization's priority: none of its keys has more."""
        super().__init__(*args, **options)
        lower = [(each.value, each.spoken.capitalize()) for each in reversed(Priority) if each < most]
        field = self.fields["priority"]
        field.choices = [("", f"{most.spoken.capitalize()}, as the organization"), *lower]  # type: ignore[attr-defined]  # a field of choices
