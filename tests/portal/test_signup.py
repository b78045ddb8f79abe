"""Signing up, logging in and out, and passwords."""

import pytest
from django.conf import settings
from django.core import mail
from django.db import DatabaseError
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from apps.accounts.models import Membership, Organization, Project, User
from apps.portal import signup
from crun import settings as shipped
from tests.portal.conftest import PASSWORD

SIGN_UP = {"email": "Ada@Example.com", "password1": PASSWORD, "organization_name": "Analytical Engines"}
pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("own_rate_limits")]


def test_signing_up_makes_user_organization_and_default_project(client: Client, settings: Settings) -> None:
    settings.PASSWORD_HASHERS = shipped.PASSWORD_HASHERS
    response = client.post(reverse("account_signup"), SIGN_UP, follow=True)
    assert response.redirect_chain[-1][0] == "/o/analytical-engines/"
    user = User.objects.get()
    organization = Organization.objects.get()
    assert user.email == "ada@example.com"
    assert user.password.startswith("argon2")
    assert Membership.objects.get(user=user, organization=organization).role == "owner"
    assert Project.objects.for_organization(organization.id).get().slug == "default"


def test_a_failure_half_way_leaves_nothing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise DatabaseError("no room")

    monkeypatch.setattr(signup, "create_organization", fail)
    with pytest.raises(DatabaseError, match="no room"):
        client.post(reverse("account_signup"), SIGN_UP)
    assert not User.objects.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"organization_name": " "}, "This field is required."),
        ({"password1": "short"}, "at least 10 characters"),
        ({"password1": "ada@example.com"}, "too similar"),
        ({"email": "nonsense"}, "valid email address"),
    ],
)
def test_a_mistake_is_explained(client: Client, change: dict[str, str], words: str) -> None:
    response = client.post(reverse("account_signup"), {**SIGN_UP, **change})
    assert words in response.content.decode()
    assert not User.objects.exists()
    assert not Organization.objects.exists()


def test_an_address_signs_up_once(client: Client) -> None:
    User.objects.create_user("ada@example.com", PASSWORD)
    response = client.post(reverse("account_signup"), SIGN_UP)
    assert User.objects.count() == 1
    assert not Organization.objects.exists()
    assert "There is an account with this email address already" in response.content.decode()


def test_login_and_logout(client: Client) -> None:
    client.post(reverse("account_signup"), SIGN_UP)
    client.post(reverse("account_logout"))
    assert client.get("/o/analytical-engines/").status_code == 302
    wrong = client.post(reverse("account_login"), {"login": "ada@example.com", "password": "wrong"})
    assert "Email address and password do not match." in wrong.content.decode()
    right = client.post(reverse("account_login"), {"login": "ADA@example.com", "password": PASSWORD}, follow=True)
    assert right.redirect_chain[-1][0] == "/o/analytical-engines/"


def test_login_goes_on_to_the_page_that_was_asked_for_and_nowhere_else(client: Client) -> None:
    client.post(reverse("account_signup"), SIGN_UP)
    for target, expected in (
        ("/o/analytical-engines/keys/", "/o/analytical-engines/keys/"),
        ("https://evil.example/", "/"),
    ):
        client.post(reverse("account_logout"))
        credentials = {"login": "ada@example.com", "password": PASSWORD, "next": target}
        assert client.post(reverse("account_login"), credentials)["Location"] == expected


def test_guessing_passwords_is_stopped(client: Client) -> None:
    User.objects.create_user("ada@example.com", PASSWORD)
    for _ in range(11):
        response = client.post(reverse("account_login"), {"login": "ada@example.com", "password": "wrong"})
    assert "Too many" in response.content.decode()
    client.post(reverse("account_login"), {"login": "ada@example.com", "password": PASSWORD})
    assert "_auth_user_id" not in client.session


def test_a_forgotten_password_is_reset_by_mail(client: Client) -> None:
    User.objects.create_user("ada@example.com", PASSWORD)
    response = client.post(reverse("account_reset_password"), {"email": "ada@example.com"}, follow=True)
    assert "Look into your inbox" in response.content.decode()
    [message] = mail.outbox
    link = next(word for word in message.body.split() if "/password/reset/key/" in word)
    form = client.get(link, follow=True)
    assert "Choose a new password" in form.content.decode()
    new = "entirely different words"
    done = client.post(form.redirect_chain[-1][0], {"password1": new, "password2": new}, follow=True)
    assert "Your password is changed" in done.content.decode()
    assert User.objects.get().check_password(new)
    assert "This link does not work any more" in client.get(link, follow=True).content.decode()


def test_an_unknown_address_gets_the_same_answer(client: Client) -> None:
    response = client.post(reverse("account_reset_password"), {"email": "nobody@example.com"}, follow=True)
    assert "Look into your inbox" in response.content.decode()


@pytest.mark.parametrize(
    "name",
    ["account_login", "account_signup", "account_reset_password", "account_reset_password_done", "account_inactive"],
)
def test_account_pages_have_the_portals_look(client: Client, name: str) -> None:
    page = client.get(reverse(name)).content.decode()
    assert 'class="panel' in page
    assert "css/portal.css" in page


@pytest.mark.parametrize("name", ["account_change_password", "account_email", "account_logout"])
def test_a_members_account_pages_have_it_too(client: Client, name: str) -> None:
    client.post(reverse("account_signup"), SIGN_UP)
    page = client.get(reverse(name)).content.decode()
    assert 'class="panel' in page
    assert "Back to the portal" in page


def test_an_operator_can_close_sign_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "SIGNUP_IS_OPEN", False)
    page = client.post(reverse("account_signup"), SIGN_UP).content.decode()
    assert "Sign-up is closed" in page
    assert not User.objects.exists()
