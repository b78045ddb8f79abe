"""The start page, choosing among organizations, making one, and settings."""

from collections.abc import Callable

import pytest
from django.test import Client, override_settings

from apps.accounts.models import Membership, Organization, Project, User
from apps.accounts.organizations import create_organization
from tests.portal.conftest import Cast


@pytest.fixture
def loner(db: None) -> Client:
    """Somebody without any organization."""
    client = Client()
    client.force_login(
        User.objects.create_user("loner@example.com"), backend="django.contrib.auth.backends.ModelBackend"
    )
    return client


@override_settings(PUBLIC_URL="https://llm.example")
def test_visitors_see_what_this_is(client: Client, db: None) -> None:
    page = client.get("/").content.decode()
    assert "Create an account" in page
    assert "https://llm.example/api/v1" in page


def test_a_member_goes_on_to_the_organization_used_last(cast: Cast, owner: Client) -> None:
    second = create_organization("Beta", owner=cast.people["owner"])
    assert owner.get("/")["Location"] == "/o/acme/"
    owner.get(f"/o/{second.slug}/")
    assert owner.get("/")["Location"] == f"/o/{second.slug}/"
    Membership.objects.filter(organization=second).delete()
    assert owner.get("/")["Location"] == "/o/acme/"


def test_the_switcher_lists_own_organizations_only(cast: Cast, owner: Client) -> None:
    create_organization("Beta", owner=cast.people["owner"])
    page = owner.get("/o/acme/").content.decode()
    assert "Beta" in page
    assert "Elsewhere" not in page


def test_somebody_without_an_organization_can_make_one(loner: Client) -> None:
    assert loner.get("/")["Location"] == "/organizations/new/"
    assert loner.get("/organizations/new/").status_code == 200
    assert loner.post("/organizations/new/", {"name": ""}).status_code == 422
    response = loner.post("/organizations/new/", {"name": "Mine"})
    assert response["Location"] == "/o/mine/"
    assert loner.get("/o/mine/").status_code == 200


def test_making_an_organization_takes_a_login(client: Client, db: None) -> None:
    response = client.post("/organizations/new/", {"name": "Nobody's"})
    assert response["Location"].startswith("/accounts/login/")
    assert not Organization.objects.exists()


@override_settings(PUBLIC_URL="https://llm.example")
def test_the_quick_start_names_this_installation_and_a_model_that_works(owner: Client, price: object) -> None:
    page = owner.get("/o/acme/").content.decode()
    assert "curl https://llm.example/api/v1/chat/completions" in page
    assert "base_url=&quot;https://llm.example/api/v1&quot;" in page or 'base_url="https://llm.example/api/v1"' in page
    assert "swift-1" in page


def test_the_overview_sums_today_and_the_month(owner: Client, request_id: str) -> None:
    context = owner.get("/o/acme/").context
    assert context["today"].cost_nanos == context["month"].cost_nanos == 14_671
    assert context["month"].tokens == 110


def test_an_owner_renames_the_organization_and_its_address_stays(cast: Cast, owner: Client) -> None:
    owner.post("/o/acme/settings/", {"organization-name": "Acme & Daughters"})
    cast.organization.refresh_from_db()
    assert (cast.organization.name, cast.organization.slug) == ("Acme & Daughters", "acme")
    assert owner.post("/o/acme/settings/", {"organization-name": ""}).status_code == 422


def test_an_owner_creates_a_project(cast: Cast, owner: Client) -> None:
    response = owner.post("/o/acme/settings/projects/", {"project-name": "Night shift"}, follow=True)
    assert "Night shift" in response.content.decode()
    assert Project.objects.for_organization(cast.organization.id).get(slug="night-shift").name == "Night shift"


@pytest.mark.parametrize("name", ["", "Default", "!!!", "x" * 101])
def test_a_project_that_cannot_be_is_explained(cast: Cast, owner: Client, name: str) -> None:
    response = owner.post("/o/acme/settings/projects/", {"project-name": name})
    assert response.status_code == 422
    assert response.context["project_form"].errors["name"]
    assert Project.objects.for_organization(cast.organization.id).count() == 1


def test_members_are_listed_and_strangers_are_not(client_of: Callable[[str], Client]) -> None:
    page = client_of("viewer").get("/o/acme/settings/").content.decode()
    for name in ("owner", "developer", "finance", "viewer"):
        assert f"{name}@example.com" in page
    assert "stranger@example.com" not in page
    assert "Save name" not in page
