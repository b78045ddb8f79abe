"""People in the console."""

from django.test import Client
from django.urls import reverse

from apps.accounts.models import User

ADD = "/console/accounts/user/add/"
NO_MEMBERSHIPS = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}


def test_an_operator_makes_an_account_with_a_password(console: Client) -> None:
    password = "a long enough password"
    answer = console.post(ADD, {"email": "Grace@Navy.example", "password1": password, "password2": password})
    assert answer.status_code == 302
    grace = User.objects.get(email="grace@navy.example")
    assert grace.check_password(password)
    assert not grace.is_staff


def test_one_address_has_one_account_in_any_case(console: Client, customer: User) -> None:
    password = "a long enough password"
    answer = console.post(ADD, {"email": "ADA@acme.example", "password1": password, "password2": password})
    assert answer.status_code == 200
    assert "email" in answer.context["adminform"].form.errors
    assert User.objects.count() == 2


def test_a_weak_password_is_refused(console: Client) -> None:
    answer = console.post(ADD, {"email": "new@acme.example", "password1": "short", "password2": "short"})
    assert answer.context["adminform"].form.errors
    assert not User.objects.filter(email="new@acme.example").exists()


def test_an_operator_sets_a_new_password(console: Client, customer: User) -> None:
    password = "another long password"
    page = reverse("console:auth_user_password_change", args=[customer.pk])
    answer = console.post(page, {"password1": password, "password2": password})
    assert answer.status_code == 302
    customer.refresh_from_db()
    assert customer.check_password(password)


def test_an_operator_names_another_operator(console: Client, customer: User) -> None:
    page = reverse("console:accounts_user_change", args=[customer.pk])
    console.post(page, {"is_active": "on", "is_staff": "on", **NO_MEMBERSHIPS})
    customer.refresh_from_db()
    assert customer.is_staff
    client = Client()
    client.force_login(customer)
    assert client.get(reverse("console:index")).status_code == 200


def test_the_address_stays_and_nobody_becomes_superuser(console: Client, customer: User) -> None:
    page = reverse("console:accounts_user_change", args=[customer.pk])
    console.post(page, {"email": "new@acme.example", "is_active": "on", "is_superuser": "on", **NO_MEMBERSHIPS})
    customer.refresh_from_db()
    assert customer.email == "ada@acme.example"
    assert not customer.is_superuser


def test_operators_cannot_lock_themselves_out(console: Client, operator: User) -> None:
    page = reverse("console:accounts_user_change", args=[operator.pk])
    console.post(page, {"first_name": "Olga", **NO_MEMBERSHIPS})
    operator.refresh_from_db()
    assert (operator.first_name, operator.is_staff, operator.is_active) == ("Olga", True, True)


def test_accounts_are_not_deleted(console: Client, customer: User) -> None:
    page = reverse("console:accounts_user_delete", args=[customer.pk])
    assert console.post(page, {"post": "yes"}).status_code == 403
