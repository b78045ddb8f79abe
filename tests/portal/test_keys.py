"""API keys in the portal: shown once, listed by their last four, revoked for good."""

from collections.abc import Callable

import pytest
from django.test import Client
from django.utils import timezone

from apps.accounts.organizations import default_project
from apps.core.limits import Limits
from apps.keys.keyformat import is_well_formed
from apps.keys.models import ApiKey
from tests.portal.conftest import Cast

URL = "/o/acme/keys/"


def create(client: Client, cast: Cast, **changes: str) -> str:
    form = {"name": "Notebook", "project": cast.project.id, "expires": "", **changes}
    response = client.post(URL, form)
    assert response.status_code == 200, response.content.decode()
    return str(response.context["issued"].secret)


def test_the_secret_is_shown_once_and_kept_by_no_cache(cast: Cast, owner: Client) -> None:
    response = owner.post(URL, {"name": "Notebook", "project": cast.project.id, "expires": ""})
    secret = response.context["issued"].secret
    assert is_well_formed(secret)
    assert response.content.decode().count(secret) == 1
    assert "no-store" in response["Cache-Control"]
    later = owner.get(URL).content.decode()
    assert secret not in later
    assert f"{secret[:8]}…{secret[-4:]}" in later


def test_a_key_can_be_given_limits_and_shows_them(cast: Cast, owner: Client) -> None:
    limits = {
        "budget": "12.5",
        "budget_period": "month",
        "requests_per_minute": "60",
        "tokens_per_minute": "40000",
        "requests_per_day": "1000",
        "concurrency": "5",
    }
    create(owner, cast, **limits)
    key = ApiKey.objects.get(name="Notebook")
    assert key.limits == Limits(60, 40_000, 1_000, 5, 12_500_000_000, "month")
    page = owner.get(URL).content.decode()
    for words in ("12.50 USD a month", "60 requests per minute", "40,000 tokens per minute", "5 at a time"):
        assert words in page


def test_a_sandbox_key_is_made_on_request_and_says_what_it_is(cast: Cast, owner: Client) -> None:
    assert create(owner, cast, sandbox="on").startswith("ak_test")
    key = ApiKey.objects.get(name="Notebook")
    assert key.sandbox
    page = owner.get(URL).content.decode()
    assert "not charged" in page
    assert f"?traffic=sandbox&amp;key={key.id}" in page
    refused = owner.post(URL, {"name": "B", "project": cast.project.id, "sandbox": "on", "budget": "1"})
    assert refused.status_code == 422
    assert "A sandbox key spends no money, so it has no budget." in refused.content.decode()


def test_empty_limits_are_no_limits_and_a_period_alone_means_nothing(cast: Cast, owner: Client) -> None:
    create(owner, cast, budget="", budget_period="month", requests_per_minute="", concurrency="")
    assert ApiKey.objects.get(name="Notebook").limits == Limits()


def test_a_budget_of_zero_is_a_budget(cast: Cast, owner: Client) -> None:
    create(owner, cast, budget="0", budget_period="")
    assert ApiKey.objects.get(name="Notebook").limits == Limits(budget_nanos=0)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("budget", "-1", "A budget cannot be negative"),
        ("budget", "0.0000000001", "at most nine decimals"),
        ("budget", "ten", "is not an amount in USD"),
        ("budget", "9000001", "at most 9,000,000 USD"),
        ("budget_period", "year", "not one of the available choices"),
        ("requests_per_minute", "0", "greater than or equal to 1"),
        ("tokens_per_minute", "-1", "greater than or equal to 1"),
        ("requests_per_day", "1.5", "Enter a whole number"),
        ("concurrency", "1000000001", "less than or equal to"),
    ],
)
def test_a_wrong_limit_is_explained_where_it_stands(
    field: str, value: str, words: str, cast: Cast, owner: Client
) -> None:
    response = owner.post(URL, {"name": "Notebook", "project": cast.project.id, field: value})
    assert response.status_code == 422
    assert list(response.context["form"].errors) == [field]
    assert words in response.context["form"].errors[field][0]
    assert '<details class="col-span-full" open>' in response.content.decode()
    assert not ApiKey.objects.filter(name="Notebook").exists()


def test_the_secret_is_neither_in_the_session_nor_in_the_database(cast: Cast, owner: Client) -> None:
    secret = create(owner, cast)
    key = ApiKey.objects.get(name="Notebook")
    assert secret not in str(dict(owner.session))
    assert all(secret not in str(value) for value in vars(key).values())
    assert key.created_by == cast.people["owner"]


def test_a_key_can_be_given_an_end(cast: Cast, owner: Client) -> None:
    create(owner, cast, expires="30")
    expires_at = ApiKey.objects.get(name="Notebook").expires_at
    assert expires_at is not None
    assert 29 <= (expires_at - timezone.now()).days <= 30


@pytest.mark.parametrize("name", ["", " ", "x" * 101])
def test_a_bad_name_is_explained_and_makes_no_key(name: str, cast: Cast, owner: Client) -> None:
    response = owner.post(URL, {"name": name, "project": cast.project.id})
    assert response.status_code == 422
    assert response.context["form"].errors["name"]
    assert ApiKey.objects.for_organization(cast.organization.id).count() == 1


def test_a_project_of_another_organization_cannot_be_chosen(cast: Cast, owner: Client) -> None:
    foreign = default_project(cast.stranger_organization)
    response = owner.post(URL, {"name": "Spy", "project": foreign.id})
    assert response.status_code == 422
    assert not ApiKey.objects.filter(name="Spy").exists()


def test_a_name_is_text_never_markup(cast: Cast, owner: Client) -> None:
    create(owner, cast, name="<script>alert(1)</script>")
    page = owner.get(URL).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_keys_of_others_are_not_listed(cast: Cast, owner: Client) -> None:
    page = owner.get(URL).content.decode()
    assert "Backend" in page
    assert cast.stranger_key.name not in page
    assert cast.stranger_key.redacted not in page


def test_revoking_asks_first_then_ends_the_key(cast: Cast, owner: Client) -> None:
    url = f"{URL}{cast.key.id}/revoke/"
    assert "Revoke “Backend”?" in owner.get(url).content.decode()
    cast.key.refresh_from_db()
    assert cast.key.revoked_at is None
    response = owner.post(url, follow=True)
    assert response.redirect_chain == [(URL, 302)]
    cast.key.refresh_from_db()
    assert cast.key.revoked_at is not None
    assert [row["key"] for row in response.context["ended"]] == [cast.key]
    assert response.context["active"] == []


def test_revoking_twice_keeps_the_first_moment(cast: Cast, owner: Client) -> None:
    url = f"{URL}{cast.key.id}/revoke/"
    owner.post(url)
    cast.key.refresh_from_db()
    first = cast.key.revoked_at
    owner.post(url)
    cast.key.refresh_from_db()
    assert cast.key.revoked_at == first


def test_a_viewer_sees_keys_but_no_way_to_change_them(client_of: Callable[[str], Client], cast: Cast) -> None:
    page = client_of("viewer").get(URL).content.decode()
    assert cast.key.redacted in page
    assert "Create key" not in page
    assert "/revoke/" not in page


def test_spend_and_last_use_stand_beside_the_key(cast: Cast, owner: Client, request_id: str) -> None:
    row = owner.get(URL).context["active"][0]
    assert row["spent"].requests == 1
    assert row["last_used"] is not None
