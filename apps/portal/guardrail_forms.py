"""What people type into the forms of guardrails: one form for each kind of rule."""

from typing import Any, Final

from django import forms

from apps.accounts.models import Organization
from apps.core.name_fields import NameFormField
from apps.keys.models import ApiKey
from apps.policies.expressions import MAX_KEYWORD, MAX_KEYWORDS, MAX_PATTERN
from apps.policies.guardrails import NAME_LENGTH, Draft
from apps.policies.models import ACTIONS, DIRECTIONS, MODES
from apps.policies.personal_data import NAMES
from apps.policies.reading import guardrail_of
from apps.policies.rules import (
    PERSONAL_DATA_KINDS,
    Check,
    KeywordsCheck,
    ModelsCheck,
    ModerationCheck,
    PatternCheck,
    PersonalDataCheck,
)

MAX_TRIED: Final = 20_000
"""Characters of a text that is tried."""
_KIND_CHOICES: Final = [(kind, f"{NAMES[kind][:1].upper()}{NAMES[kind][1:]}") for kind in PERSONAL_DATA_KINDS]
_CODE: Final = {"autocomplete": "off", "spellcheck": "false", "class": "font-mono"}


def _lines(label: str, help_text: str, *, required: bool = False) -> forms.CharField:
    widget = forms.Textarea(attrs={"rows": 5, **_CODE})
    return forms.CharField(label=label, help_text=help_text, required=required, widget=widget)


class GuardrailForm(forms.Form):
    """What all kinds have in common."""

    what: tuple[str, ...] = ()
    """The fields that say what the rule looks for."""
    without: tuple[str, ...] = ()
    """Common fields that mean nothing for this kind."""

    name = NameFormField(
        max_length=NAME_LENGTH,
        help_text="Whoever is refused is told this name.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "No card numbers"}),
    )
    mode = forms.ChoiceField(
        label="State", choices=MODES, initial="on", help_text="Log only: noted on receipts, and nothing else happens."
    )
    direction = forms.ChoiceField(label="Reads", choices=DIRECTIONS)
    action = forms.ChoiceField(
        label="Does", choices=ACTIONS, help_text="Redact: a placeholder such as [EMAIL_1] takes its place."
    )

    def __init__(self, organization: Organization, *args: Any, row: Any = None, **options: Any) -> None:
        super().__init__(*args, **options)
        keys = ApiKey.objects.for_organization(organization.id).filter(revoked_at=None)
        self.fields["key"] = forms.ModelChoiceField(
            (keys | ApiKey.objects.for_organization(organization.id).filter(pk=row.key_id)) if row else keys,
            label="Holds for",
            empty_label="All keys of the organization",
            required=False,
        )
        if row is not None:
            stored = {name: getattr(row, name) for name in ("name", "mode", "direction", "action")}
            self.initial.update(stored, key=row.key_id, **self.shown(guardrail_of(row).check))
        for name in self.without:
            del self.fields[name]

    @property
    def looks_for(self) -> list[forms.BoundField]:
        """What the rule looks for."""
        return [self[name] for name in self.what]

    @property
    def rest(self) -> list[forms.BoundField]:
        """Everything else."""
        return [self[name] for name in ("name", "mode", "direction", "action", "key") if name in self.fields]

    def draft(self) -> Draft:
        """What was typed, of a valid form."""
        chosen = self.cleaned_data
        key = chosen["key"]
        return Draft(
            name=chosen["name"],
            check=self.check(),
            mode=chosen["mode"],
            direction=chosen.get("direction", "both"),
            action=chosen.get("action", "block"),
            key_id=key.pk if key is not None else None,
        )

    def check(self) -> Check:
        """What the rule looks for."""
        raise NotImplementedError  # each kind of rule has its own; a form's metaclass leaves no room for that of ABC

    def shown(self, check: Any) -> dict[str, Any]:
        """A check as the fields show it."""
        raise NotImplementedError  # as above


class ModelsForm(GuardrailForm):
    """Which models may be asked."""

    what = ("allowed", "denied")
    without = ("direction", "action")
    allowed = _lines("Allowed models", "One on each line, such as gpt-4o-mini or claude-*. Empty: all.")
    denied = _lines("Denied models", "These may not be asked, even where they are allowed.")

    def check(self) -> Check:
        chosen = self.cleaned_data
        return ModelsCheck(tuple(chosen["allowed"].splitlines()), tuple(chosen["denied"].splitlines()))

    def shown(self, check: Any) -> dict[str, Any]:
        return {"allowed": "\n".join(check.allowed), "denied": "\n".join(check.denied)}


class PatternForm(GuardrailForm):
    """An expression."""

    what = ("pattern", "ignore_case")
    pattern = forms.CharField(
        label="Expression",
        max_length=MAX_PATTERN,
        strip=False,
        widget=forms.TextInput(attrs=_CODE),
        help_text=r"RE2's syntax, without look-around and back-references: \bsk-[a-z0-9]{20,}\b",
    )
    ignore_case = forms.BooleanField(label="In any case", required=False)

    def check(self) -> Check:
        return PatternCheck(self.cleaned_data["pattern"], self.cleaned_data["ignore_case"])

    def shown(self, check: Any) -> dict[str, Any]:
        return {"pattern": check.pattern, "ignore_case": check.ignore_case}


class KeywordsForm(GuardrailForm):
    """Words and phrases."""

    what = ("words",)
    words = _lines(
        "Keywords",
        f"One on each line: words or phrases, up to {MAX_KEYWORDS} of {MAX_KEYWORD} characters. Any case, whole words.",
        required=True,
    )

    def check(self) -> Check:
        return KeywordsCheck(tuple(self.cleaned_data["words"].splitlines()))

    def shown(self, check: Any) -> dict[str, Any]:
        return {"words": "\n".join(check.words)}


class PersonalDataForm(GuardrailForm):
    """Addresses and numbers of people."""

    what = ("phone_region",)
    kinds = forms.MultipleChoiceField(
        label="Looks for",
        choices=_KIND_CHOICES,
        initial=list(PERSONAL_DATA_KINDS),
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
    phone_region = forms.CharField(
        label="Country of phone numbers",
        max_length=2,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "US"}),
        help_text="Two letters. Empty: only numbers that begin with + or 00 are found.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial.setdefault("action", "redact")

    def check(self) -> Check:
        return PersonalDataCheck(tuple(self.cleaned_data["kinds"]), self.cleaned_data["phone_region"])

    def shown(self, check: Any) -> dict[str, Any]:
        return {"kinds": list(check.kinds), "phone_region": check.phone_region}


class ModerationForm(GuardrailForm):
    """The operator's moderation model."""

    what = ("categories", "when_unavailable")
    without = ("action",)
    categories = _lines("Categories", "One on each line, such as violence or self-harm. Empty: whatever it flags.")
    when_unavailable = forms.ChoiceField(
        label="When nobody can judge",
        choices=[("block", "Answer 503: nothing unjudged passes"), ("allow", "Let it pass and note that")],
    )

    def check(self) -> Check:
        chosen = self.cleaned_data
        return ModerationCheck(tuple(chosen["categories"].splitlines()), chosen["when_unavailable"])

    def shown(self, check: Any) -> dict[str, Any]:
        return {"categories": "\n".join(check.categories), "when_unavailable": check.when_unavailable}


FORMS: Final[dict[str, type[GuardrailForm]]] = {
    "models": ModelsForm,
    "pattern": PatternForm,
    "keywords": KeywordsForm,
    "personal_data": PersonalDataForm,
    "moderation": ModerationForm,
}


class TryForm(forms.Form):
    """A text to be read with the rules. It is kept nowhere."""

    text = forms.CharField(
        label="A text",
        max_length=MAX_TRIED,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 5, "spellcheck": "false", "autocomplete": "off"}),
        help_text="It is read with all rules that are on or log, sent to nobody and kept nowhere.",
    )
    side = forms.ChoiceField(label="As", choices=[("input", "a request"), ("output", "an answer")])
    key = forms.ModelChoiceField(ApiKey.objects.none(), label="With the key", empty_label="any key", required=False)

    def __init__(self, organization: Organization, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = self.fields["key"]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        field.queryset = ApiKey.objects.for_organization(organization.id).filter(revoked_at=None)
