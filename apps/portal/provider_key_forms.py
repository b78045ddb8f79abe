"""What people type into the forms of own provider keys."""

from collections.abc import Iterable
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError

from apps.catalog.models import Model, Provider
from apps.catalog.snapshot import load_snapshot
from apps.core.name_fields import NameFormField
from apps.keys.models import ApiKey
from apps.policies.credentials import MOST_CHARACTERS, MOST_LISTED, Terms
from apps.policies.models import ProviderCredential
from apps.policies.own_credentials import OWN_KINDS, SETTABLE_OPTIONS

MOST_ORDER: Final = 1_000


def usable_providers() -> list[Provider]:
    """The providers that serve a model here now, by name: those that a key can be for. Sandboxes cost nothing."""
    targets = (target for model in load_snapshot().models.values() for target in model.targets)
    serving = {target.provider for target in targets if not target.is_sandbox}
    return list(Provider.objects.filter(pk__in=serving).order_by("name", "id"))


class SecretForm(forms.Form):
    """A key in the place of another."""

    secret = forms.CharField(
        label="Key",
        max_length=MOST_CHARACTERS,
        widget=forms.PasswordInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
        help_text="Sealed at once and never shown again. At AWS: ACCESS_KEY_ID:SECRET_ACCESS_KEY."
        " For a client of Entra: TENANT:CLIENT_ID:CLIENT_SECRET.",
    )


class TermsForm(forms.Form):
    """What may be said of a provider key, but for the key itself."""

    label = NameFormField(label="Label", max_length=60)
    order = forms.IntegerField(
        label="Order",
        min_value=0,
        max_value=MOST_ORDER,
        initial=0,
        help_text="Of several keys the lower is tried first.",
    )
    is_exclusive = forms.BooleanField(
        label="Always use this key",
        required=False,
        help_text="Models that it could serve are never paid for at our price: when it fails, the request fails.",
    )
    model_ids = forms.CharField(
        label="Models",
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "autocomplete": "off", "spellcheck": "false"}),
        help_text="One id on each line. Empty: all that the provider serves.",
    )
    key_ids = forms.MultipleChoiceField(
        label="API keys",
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="None ticked: all API keys may use it.",
    )
    kind = forms.ChoiceField(label="Kind of key", required=False, help_text="Usual: as this installation's own.")

    def __init__(self, *args: Any, organization_id: str, providers: Iterable[Provider], **options: Any) -> None:
        super().__init__(*args, **options)
        self.providers = {provider.id: provider for provider in providers}
        keys = ApiKey.objects.for_organization(organization_id).filter(revoked_at=None, sandbox=False)
        key_field, kind_field = self.fields["key_ids"], self.fields["kind"]
        named = self.initial.get("key_ids", ())
        key_field.choices = [  # type: ignore[attr-defined]  # a field of choices
            *((key.id, f"{key.name} ···{key.last_four}") for key in keys.order_by("name", "id")),
            *((key_id, f"{key_id} (ended)") for key_id in named if not keys.filter(pk=key_id).exists()),
        ]
        dialects = {provider.dialect for provider in self.providers.values()} & OWN_KINDS.keys()
        kinds = [kind for dialect in sorted(dialects) for kind in OWN_KINDS[dialect]]
        kind_field.choices = [("", "Usual"), *((kind, kind) for kind in kinds)]  # type: ignore[attr-defined]  # as above
        if not kinds:
            del self.fields["kind"]

    def clean_model_ids(self) -> list[str]:
        ids = sorted({line.strip() for line in self.cleaned_data["model_ids"].split("\n")} - {""})
        if len(ids) > MOST_LISTED:
            raise ValidationError(f"Name at most {MOST_LISTED} models.")
        known = set(Model.objects.filter(pk__in=ids).values_list("id", flat=True))
        if unknown := [name for name in ids if name not in known]:
            raise ValidationError(f"There is no model “{unknown[0][:100]}” here.")
        return ids

    def terms(self, provider: Provider) -> Terms:
        """What was typed. A kind of key that the provider's dialect does not have is left for it to refuse."""
        chosen = self.cleaned_data
        kind = chosen.get("kind", "")
        return Terms(
            label=chosen["label"],
            order=chosen["order"],
            is_exclusive=chosen["is_exclusive"],
            model_ids=chosen["model_ids"],
            key_ids=chosen["key_ids"],
            options={"auth": kind} if kind else {},
        )

    def check_kind(self, provider: Provider) -> bool:
        """Whether the chosen kind of key is one of the provider's; the form says so when it is not."""
        kind = self.cleaned_data.get("kind", "")
        if kind and (provider.dialect not in SETTABLE_OPTIONS or kind not in OWN_KINDS[provider.dialect]):
            self.add_error("kind", f"{provider.name} has no keys of this kind.")
            return False
        return True

    @staticmethod
    def initial_of(row: ProviderCredential) -> dict[str, Any]:
        """What a key says now."""
        return {
            "label": row.label,
            "order": row.order,
            "is_exclusive": row.is_exclusive,
            "model_ids": "\n".join(row.model_ids),
            "key_ids": row.key_ids,
            "kind": row.options.get("auth", ""),
        }


class NewProviderKeyForm(SecretForm, TermsForm):
    """A new key: at which provider, and everything else."""

    provider = forms.ChoiceField(label="Provider")
    field_order = ("provider", "label", "secret", "kind", "order", "is_exclusive", "model_ids", "key_ids")

    def __init__(self, *args: Any, organization_id: str, providers: Iterable[Provider], **options: Any) -> None:
        super().__init__(*args, organization_id=organization_id, providers=providers, **options)
        choices = [(provider.id, provider.name or provider.id) for provider in self.providers.values()]
        self.fields["provider"].choices = choices  # type: ignore[attr-defined]  # a field of choices
