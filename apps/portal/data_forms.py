"""Where an organization lets its prompts go, as its owner says it."""

from django import forms
from django.conf import settings
from django.http import QueryDict

from apps.catalog.models import Provider
from apps.policies.models import DataPolicy

_FLAGS = ("denies_collection", "requires_zero_retention", "forbids_copies", "forbids_storage")


class DataPolicyForm(forms.Form):
    """The whole decision. Providers are offered only where the operator shows who they are."""

    denies_collection = forms.BooleanField(
        label="Only to providers that do not keep prompts or learn from them", required=False
    )
    requires_zero_retention = forms.BooleanField(
        label="Only to providers that keep nothing of a request once it is answered", required=False
    )
    forbids_copies = forms.BooleanField(label="No copies elsewhere, to compare answers", required=False)
    forbids_storage = forms.BooleanField(
        label="No responses stored here, to go on from",
        required=False,
        help_text="Those that are stored already stay until they are deleted, or their time is over.",
    )

    def __init__(self, organization_id: str, data: QueryDict | None = None, *, prefix: str) -> None:
        self._policy: DataPolicy = DataPolicy.objects.for_organization(organization_id).first() or DataPolicy(
            organization_id=organization_id
        )
        policy = self._policy
        said = {name: getattr(policy, name) for name in (*_FLAGS, "regions", "denied_providers")}
        super().__init__(data, initial=said, prefix=prefix)
        enabled = Provider.objects.filter(enabled=True)
        regions = {region for region in enabled.values_list("region", flat=True) if region} | set(policy.regions)
        if regions:
            help_text = "None ticked: in any, also where the region is not known."
            self.fields["regions"] = _boxes("Only in these regions", regions, help_text)
        if settings.SHOW_PROVIDERS:
            names = {*enabled.values_list("id", flat=True), *policy.denied_providers}
            self.fields["denied_providers"] = _boxes("Not to these providers", names, "")

    def decided(self) -> DataPolicy:
        """The decision of a valid form, not saved yet. What the form did not offer stays as it was."""
        for name, value in self.cleaned_data.items():
            setattr(self._policy, name, value)
        return self._policy


def _boxes(label: str, names: set[str], help_text: str) -> forms.MultipleChoiceField:
    return forms.MultipleChoiceField(
        label=label,
        choices=[(name, name) for name in sorted(names)],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=help_text,
    )
