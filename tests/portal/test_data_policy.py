"""Where prompts may go, in the portal: said by an owner, seen by all members, and of no other organization."""

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.conf import settings as installation
from django.test import Client
from django.urls import reverse

from apps.accounts.models import Project
from apps.accounts.roles import Role
from apps.catalog.models import Provider
from apps.policies.data_rules import DataRules
from apps.policies.models import DataPolicy
from apps.policies.reading import read_data_rules
from apps.responses.contracts import OpenedResponse, ResponseOwner
from apps.responses.conversations import Conversation
from apps.responses.forgetting import kept_by
from apps.responses.keeping import keep
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


def stored(organization: Any, name: str) -> ResponseOwner:
    """A stored response of an organization."""
    project = Project.objects.for_organization(organization.id).first() or Project.objects.create(
        organization=organization, name="Default", slug="default"
    )
    owner = ResponseOwner(organization.id, project.id, sandbox=False)
    keep(owner, OpenedResponse(name, name, b"{}"), previous_id="", days=30, ring=installation.ENCRYPTION_KEYS)
    return owner


def test_stored_responses_are_counted_and_an_owner_deletes_all_of_them(
    cast: Cast, client_of: Callable[[str], Client]
) -> None:
    mine, theirs = stored(cast.organization, "resp_a"), stored(cast.stranger_organization, "resp_b")
    slug = cast.organization.slug
    page, erase = (reverse(f"portal:{name}", args=[slug]) for name in ("settings", "erase_responses"))
    seen = client_of(Role.VIEWER).get(page).content.decode()
    assert "1 response," in seen and "30 days after the last turn" in seen and "Delete all of them" not in seen
    for role in (Role.VIEWER, Role.FINANCE):
        assert client_of(role).post(erase).status_code == 403
    assert kept_by(mine.organization_id).responses == 1
    owner = client_of(Role.OWNER)
    assert "1 response of all projects" in owner.get(erase).content.decode()
    Conversation(mine, "conv_a", days=30, ring=installation.ENCRYPTION_KEYS).create(b"{}", [])
    assert "1 response, 1 conversation," in owner.get(page).content.decode()
    assert "1 response and 1 conversation of all projects" in owner.get(erase).content.decode()
    assert "Deleted: 1 stored response and 1 conversation." in owner.post(erase, follow=True).content.decode()
    assert (kept_by(mine.organization_id).responses, kept_by(theirs.organization_id).responses) == (0, 1)


def test_an_owner_forbids_storing(cast: Cast, client_of: Callable[[str], Client]) -> None:
    owner, slug = client_of(Role.OWNER), cast.organization.slug
    answer = owner.post(reverse("portal:data_policy", args=[slug]), {"data-forbids_storage": "on"}, follow=True)
    assert read_data_rules(cast.organization.id) == DataRules(forbids_storage=True)
    assert "No responses are stored for you" in answer.content.decode()
