"""Where prompts may go, in the portal: said by an owner, seen by all members, and of no other organization."""

from collections.abc import Callable

import pytest
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse

from apps.accounts.roles import Role
from apps.catalog.models import Provider
from apps.policies.data_rules import DataRules
from apps.policies.models import DataPolicy
from apps.policies.reading import read_data_rules
from tests.portal.conftest import Cast


@pytest.fixture
def places(db: None) -> None:
    for name, region in (("hidden-one", "eu"), ("hidden-two", "us"), ("hidden-old", "")):
        Provider.objects.create(id=name, name=name, base_url="https://one.example/v1", region=region)


def test_an_owner_decides_and_all_members_see_it(
    cast: Cast, client_of: Callable[[str], Client], places: None, settings: LazySettings
) -> None:
    owner, slug = client_of(Role.OWNER), cast.organization.slug
    page = reverse("portal:settings", args=[slug])
    assert "hidden-one" not in owner.get(page).content.decode()
    sent = {"data-regions": ["eu"], "data-denies_collection": "on", "data-denied_providers": ["hidden-two"]}
    answer = owner.post(reverse("portal:data_policy", args=[slug]), sent, follow=True)
    assert "It holds for every request from now on" in answer.content.decode()
    assert read_data_rules(cast.organization.id) == DataRules(regions=("eu",), denies_collection=True)
    assert read_data_rules(cast.stranger_organization.id) is None
    assert DataPolicy.objects.get().changed_by == cast.people["owner"]
    seen = client_of(Role.VIEWER).get(page).content.decode()
    assert "only the regions eu; no provider that may keep prompts" in seen
    assert "Save where prompts may go" not in seen
    settings.SHOW_PROVIDERS = True
    owner.post(reverse("portal:data_policy", args=[slug]), sent)
    assert read_data_rules(cast.organization.id) == DataRules(("eu",), True, denied_providers=("hidden-two",))
    settings.SHOW_PROVIDERS = False
    owner.post(reverse("portal:data_policy", args=[slug]), {"data-forbids_copies": "on"})
    assert read_data_rules(cast.organization.id) == DataRules(denied_providers=("hidden-two",), forbids_copies=True)


def test_a_region_that_nobody_has_is_no_choice(cast: Cast, client_of: Callable[[str], Client], places: None) -> None:
    address = reverse("portal:data_policy", args=[cast.organization.slug])
    answer = client_of(Role.OWNER).post(address, {"data-regions": ["mars"]})
    assert answer.status_code == 422
    assert read_data_rules(cast.organization.id) is None
