"""What people type into the portal's forms."""

import secrets
from datetime import datetime, timedelta

from django import forms
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.text import slugify

from apps.accounts.models import Organization, Project
from apps.core.limit_fields import BUDGET_HELP, PERIOD_CHOICES, UsdField
from apps.core.limits import MAX_RATE, Limits, check_period
from apps.core.name_fields import NameFormField

NAME_LENGTH = 100
_SLUG_LENGTH = 50
_TAKEN = "A project with this name exists already."
_LIFETIMES = [
    ("", "Never"),
    ("7", "In 7 days"),
    ("30", "In 30 days"),
    ("90", "In 90 days"),
    ("365", "In a year"),
]

_BASICS = ["name", "project", "expires", "sandbox"]


class OrganizationForm(forms.Form):
    """The name of a new or existing organization."""

    name = NameFormField(
        label="Organization name",
        max_length=Organization._meta.get_field("name").max_length,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )


class ProjectForm(forms.Form):
    """A new project of an organization; its slug is made from the name and must be free."""

    name = NameFormField(label="Project name", max_length=NAME_LENGTH)

    def __init__(self, organization: Organization, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # handed through as they came
        self._organization = organization

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if not slugify(name)[:_SLUG_LENGTH]:
            raise forms.ValidationError("Use at least one letter or digit from a to z and 0 to 9.")
        projects = Project.objects.for_organization(self._organization.id)
        if projects.filter(slug=slugify(name)[:_SLUG_LENGTH]).exists():
            raise forms.ValidationError(_TAKEN)
        return name

    def save(self) -> Project:
        """The new project of a valid form. A slug that was taken meanwhile gets a suffix, not an error page."""
        name = self.cleaned_data["name"]
        slug = slugify(name)[:_SLUG_LENGTH]
        try:
            with transaction.atomic():
                return self._insert(name, slug)
        except IntegrityError:
            return self._insert(name, f"{slug}-{secrets.token_hex(3)}")

    def _insert(self, name: str, slug: str) -> Project:
        project: Project = Project.objects.create(organization=self._organization, name=name, slug=slug)
        return project


def _rate(label: str, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(label=label, help_text=help_text, required=False, min_value=1, max_value=MAX_RATE)


class KeyForm(forms.Form):
    """A new API key: a name to know it by, the project it belongs to and, if wanted, an end and limits."""

    name = NameFormField(
        max_length=NAME_LENGTH,
        help_text="Where it will be used, so that you know later what a revocation stops.",
        widget=forms.TextInput(attrs={"placeholder": "Production backend", "autocomplete": "off"}),
    )
    expires = forms.ChoiceField(choices=_LIFETIMES, required=False)
    sandbox = forms.BooleanField(
        label="Sandbox key",
        required=False,
        help_text="For tests: calls sandbox models only, spends no money, and its requests are shown apart.",
    )
    budget = UsdField(label="Budget in USD", required=False, help_text=BUDGET_HELP)
    budget_period = forms.ChoiceField(
        label="Budget begins again",
        choices=PERIOD_CHOICES,
        required=False,
        initial="lifetime",
        help_text="At 00:00 UTC: of every day, of Monday, or of the 1st.",
    )
    requests_per_minute = _rate("Requests per minute", "Empty: no limit.")
    tokens_per_minute = _rate("Tokens per minute", "Input and output together.")
    requests_per_day = _rate("Requests per day", "A day begins at 00:00 UTC.")
    concurrency = _rate("Concurrency", "Requests running at the same time.")

    def __init__(self, organization: Organization, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # handed through as they came
        self.fields["project"] = forms.ModelChoiceField(
            Project.objects.for_organization(organization.id).order_by("created_at"), empty_label=None
        )
        self.order_fields(_BASICS)

    def clean(self) -> dict[str, object]:
        cleaned: dict[str, object] = super().clean() or self.cleaned_data
        if cleaned.get("sandbox") and cleaned.get("budget") is not None:
            self.add_error("budget", "A sandbox key spends no money, so it has no budget.")
        return cleaned

    @property
    def basics(self) -> list[forms.BoundField]:
        """The fields that everybody fills in."""
        return [self[name] for name in _BASICS if name != "sandbox"]

    @property
    def limit_fields(self) -> list[forms.BoundField]:
        """The fields that all may stay empty."""
        return [bound for bound in self.visible_fields() if bound.name not in _BASICS]

    @property
    def has_wrong_limits(self) -> bool:
        """Whether something among the limits needs another look."""
        return any(bound.errors for bound in self.limit_fields)

    def expires_at(self) -> datetime | None:
        """The end that was chosen, counted from now; None for never."""
        days = self.cleaned_data["expires"]
        return timezone.now() + timedelta(days=int(days)) if days else None

    def limits(self) -> Limits:
        """The limits that were chosen. A period without a budget means nothing."""
        chosen = self.cleaned_data
        budget = chosen["budget"]
        return Limits(
            requests_per_minute=chosen["requests_per_minute"],
            tokens_per_minute=chosen["tokens_per_minute"],
            requests_per_day=chosen["requests_per_day"],
            concurrency=chosen["concurrency"],
            budget_nanos=budget,
            budget_period="lifetime" if budget is None else check_period(chosen["budget_period"] or "lifetime"),
        )
