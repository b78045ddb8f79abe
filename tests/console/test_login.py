"""Logging in to the console."""

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User

pytestmark = pytest.mark.usefixtures("own_rate_limits")
LOGIN = "/console/login/"
PASSWORD = "correct horse battery"


@pytest.fixture
def operator(operator: User) -> User:
    """The operator with a password, which costs time to make."""
    operator.set_password(PASSWORD)
    operator.save()
    return operator


def test_an_operator_logs_in_with_an_address_in_any_case(operator: User) -> None:
    client = Client()
    answer = client.post(LOGIN, {"username": "Operator@Example.com", "password": PASSWORD})
    assert answer.status_code == 302
    assert client.get(reverse("console:index")).status_code == 200


@pytest.mark.parametrize("password", ["wrong horse battery", ""])
def test_a_wrong_password_is_refused(operator: User, password: str) -> None:
    client = Client()
    answer = client.post(LOGIN, {"username": operator.email, "password": password})
    assert answer.status_code == 200
    assert client.get(reverse("console:index")).status_code == 302


def test_a_customer_is_refused_with_the_right_password(customer: User) -> None:
    customer.set_password(PASSWORD)
    customer.save()
    client = Client()
    answer = client.post(LOGIN, {"username": customer.email, "password": PASSWORD})
    assert answer.status_code == 200
    assert "_auth_user_id" not in client.session


def test_guessing_ends_after_some_attempts(operator: User) -> None:
    client = Client()
    for number in range(20):
        client.post(LOGIN, {"username": operator.email, "password": f"guess {number}"})
    answer = client.post(LOGIN, {"username": operator.email, "password": PASSWORD})
    assert answer.status_code == 200
    assert "_auth_user_id" not in client.session
    assert "Too many" in answer.content.decode()
