"""The page of own provider keys: added, changed, replaced, switched and deleted by owners, never read back."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from apps.catalog.models import PriceVersion, Provider
from apps.core.crypto import unseal
from apps.keys.models import ApiKey
from apps.policies.models import ProviderCredential
from apps.policies.own_credentials import binding
from tests.portal.conftest import Cast

SECRET = "sk-own-typed-canary-9876543210"


def page(cast: Cast, name: str = "provider_keys", row: ProviderCredential | None = None, slug: str = "") -> str:
    known = {"slug": slug or cast.organization.slug} | ({"credential_id": row.pk} if row else {})
    return reverse(f"portal:{name}", kwargs=known)


def typed(**changes: Any) -> dict[str, Any]:
    usual = {"provider": "upstream-house", "label": "Backend", "secret": SECRET, "order": "3", "model_ids": ""}
    return usual | changes


def opened(row: ProviderCredential) -> str:
    bound_to = binding(row.pk, row.organization_id, provider_id=row.provider_id, base_url=row.provider.base_url)
    return unseal(row.secret, bound_to=bound_to, ring=settings.ENCRYPTION_KEYS)


def test_an_owner_adds_a_key_and_never_sees_it_again(cast: Cast, owner: Client, price: PriceVersion) -> None:
    fields = typed(is_exclusive="on", model_ids=price.model_id, key_ids=[cast.key.id])
    response = owner.post(page(cast), fields, follow=True)
    shown = response.content.decode()
    assert response.status_code == 200 and "“Backend” is used from now on." in shown
    row = ProviderCredential.objects.get(label="Backend")
    assert (opened(row), row.order, row.is_exclusive) == (SECRET, 3, True)
    assert (row.model_ids, row.key_ids, row.created_by) == ([price.model_id], [cast.key.id], "owner@example.com")
    for address in (page(cast), page(cast, "provider_key", row)):
        shown = owner.get(address).content.decode()
        assert "···3210" in shown and SECRET not in shown and row.secret not in shown
    assert "5 % of the usual price" in owner.get(page(cast)).content.decode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"secret": "short"}, "The key must have 8 to"), ({"secret": "with blanks 0123456789"}, "without spaces"),
        ({"model_ids": "gpt-99"}, "There is no model “gpt-99” here."),
        ({"provider": "nobody"}, "Select a valid choice"),
        ({"key_ids": ["key_" + "0" * 32]}, "Select a valid choice"), ({"label": ""}, "This field is required"),
        ({"order": "-1"}, "greater than or equal to 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_the_key_is_not_repeated(
    cast: Cast, owner: Client, price: PriceVersion, fields: dict[str, Any], said: str
) -> None:
    response = owner.post(page(cast), typed(**fields))
    shown = response.content.decode()
    assert response.status_code == 422 and said in shown
    assert SECRET not in shown and "with blanks" not in shown
    assert not ProviderCredential.objects.filter(label="Backend").exists()


def test_api_keys_of_others_sandbox_keys_and_unused_providers_are_no_choice(
    cast: Cast, owner: Client, price: PriceVersion
) -> None:
    Provider.objects.create(id="idle", name="Idle house", base_url="https://idle.example/v1")
    Provider.objects.filter(pk="upstream-house").update(sandbox=True)
    assert "No provider here takes keys" in owner.get(page(cast)).content.decode()
    Provider.objects.filter(pk="upstream-house").update(sandbox=False)
    shown = owner.get(page(cast)).content.decode()
    assert "Upstream house" in shown and "Idle house" not in shown and cast.stranger_key.name not in shown
    assert owner.post(page(cast), typed(key_ids=[cast.stranger_key.id])).status_code == 422


def test_settings_replacement_switch_and_deletion(cast: Cast, owner: Client) -> None:
    row = cast.credential
    fields = {"label": "Renamed", "order": "1", "model_ids": ""}
    assert owner.post(page(cast, "provider_key", row), fields).status_code == 302
    assert owner.post(page(cast, "rotate_provider_key", row), {"secret": "x y"}).status_code == 422
    assert owner.post(page(cast, "rotate_provider_key", row), {"secret": SECRET}).status_code == 302
    assert owner.post(page(cast, "switch_provider_key", row), {"on": "no"}).status_code == 302
    row.refresh_from_db()
    assert (row.label, row.order, row.enabled, row.last_four, opened(row)) == ("Renamed", 1, False, "3210", SECRET)
    assert "Off" in owner.get(page(cast)).content.decode()
    assert "Delete “Renamed”?" in owner.get(page(cast, "delete_provider_key", row)).content.decode()
    assert owner.post(page(cast, "delete_provider_key", row)).status_code == 302
    assert not ProviderCredential.objects.filter(pk=row.pk).exists()


def test_an_api_key_that_has_ended_stays_chosen(cast: Cast, owner: Client) -> None:
    """Else a key that was for one API key alone would silently be for all of them."""
    ProviderCredential.objects.filter(pk=cast.credential.pk).update(key_ids=[cast.key.id])
    ApiKey.objects.filter(pk=cast.key.pk).update(revoked_at=cast.key.created_at)
    shown = owner.get(page(cast, "provider_key", cast.credential)).content.decode()
    assert f"{cast.key.id} (ended)" in shown


def test_nothing_reaches_the_key_of_another_organization(cast: Cast, client_of: Callable[[str], Client]) -> None:
    client, slug = client_of("stranger"), cast.stranger_organization.slug
    before = ProviderCredential.objects.values().get(pk=cast.credential.pk)
    for name in ("provider_key", "rotate_provider_key", "switch_provider_key", "delete_provider_key"):
        fields = {"label": "Mine", "order": "0", "model_ids": "", "secret": SECRET, "on": "no"}
        assert client.post(page(cast, name, cast.credential, slug), fields).status_code == 404
    assert ProviderCredential.objects.values().get(pk=cast.credential.pk) == before
    assert "Ours" not in client.get(page(cast, slug=slug)).content.decode()
