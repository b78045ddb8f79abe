"""Raising alerts: once for a key, together with all that is sent, and never without its event."""

import json
from collections.abc import Iterable

import pytest
from django.db import transaction

from apps.accounts.models import Membership, User
from apps.accounts.roles import Role
from apps.billing.alerts.endpoints import create_endpoint, switch
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertEmail, AlertKind, AlertSettings, WebhookDelivery
from apps.core.errors import InvalidInput
from tests.billing.alerts.spending import Customer, customer
from tests.billing.books import at_once

LOW = AlertKind.CREDIT_LOW


@pytest.fixture
def acme(db: None) -> Customer:
    return customer()


def raised(who: Customer | None, key: str = "k1", kind: AlertKind = LOW) -> Alert:
    return raise_alert(who and who.organization.id, kind, key=key, subject="Low", text="It is low.", details={"n": 1})


def addresses() -> Iterable[str]:
    return AlertEmail.objects.order_by("recipient").values_list("recipient", flat=True)


def test_a_key_raises_one_alert_and_returns_it_again(acme: Customer) -> None:
    first = raised(acme)
    assert raised(acme).id == first.id
    assert (Alert.objects.count(), AlertEmail.objects.count()) == (1, 1)


def test_owners_and_finance_are_told_when_nobody_is_named(acme: Customer) -> None:
    for role in (Role.FINANCE, Role.DEVELOPER, Role.VIEWER):
        user = User.objects.create_user(f"{role}@acme.example")
        Membership.objects.create(organization=acme.organization, user=user, role=role)
    raised(acme)
    assert list(addresses()) == ["finance@acme.example", "owner@acme.example"]


def test_people_who_left_are_not_told(acme: Customer) -> None:
    User.objects.filter(email="owner@acme.example").update(is_active=False)
    raised(acme)
    assert not list(addresses())


def test_named_addresses_replace_the_members(acme: Customer) -> None:
    AlertSettings.objects.create(organization=acme.organization, recipients=["ops@acme.example", "a@acme.example"])
    raised(acme)
    assert list(addresses()) == ["a@acme.example", "ops@acme.example"]


def test_a_muted_kind_is_listed_and_not_mailed(acme: Customer) -> None:
    AlertSettings.objects.create(organization=acme.organization, muted_kinds=[LOW])
    raised(acme)
    assert (Alert.objects.count(), AlertEmail.objects.count()) == (1, 0)


def test_operators_get_what_no_organization_gets(acme: Customer, settings: object) -> None:
    User.objects.create_superuser("root@crun.example")
    raised(None, kind=AlertKind.LEDGER_PROOF_FAILED)
    assert list(addresses()) == ["root@crun.example"]


def test_named_operators_replace_the_superusers(acme: Customer, settings: object) -> None:
    settings.OPERATOR_EMAILS = ["ops@crun.example"]  # type: ignore[attr-defined]  # pytest-django's settings
    User.objects.create_superuser("root@crun.example")
    raised(None, kind=AlertKind.LEDGER_PROOF_FAILED)
    assert list(addresses()) == ["ops@crun.example"]


def test_webhooks_go_to_the_endpoints_that_asked_for_the_kind(acme: Customer) -> None:
    other = customer("Other")
    wanted, _ = create_endpoint(acme.organization, "https://a.example/", kinds=[LOW, AlertKind.KEY_PAUSED])
    create_endpoint(acme.organization, "https://b.example/", kinds=[AlertKind.KEY_PAUSED])
    create_endpoint(other.organization, "https://c.example/", kinds=[LOW])
    off, _ = create_endpoint(acme.organization, "https://d.example/", kinds=[LOW])
    switch(off, on=False)
    alert = raised(acme)
    delivery = WebhookDelivery.objects.get()
    assert (delivery.endpoint_id, delivery.organization_id, delivery.event) == (wanted.id, acme.organization.id, LOW)
    body = json.loads(delivery.body)
    assert body["type"] == "credit.low"
    assert body["data"] == {"alert_id": alert.id, "subject": "Low", "text": "It is low.", "n": 1}
    assert body["timestamp"].endswith("Z")


def test_an_alert_is_undone_with_its_event(acme: Customer) -> None:
    create_endpoint(acme.organization, "https://a.example/", kinds=[LOW])
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raised(acme)
        raise ZeroDivisionError
    assert (Alert.objects.count(), AlertEmail.objects.count(), WebhookDelivery.objects.count()) == (0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_ten_at_once_raise_one(transactional_db: None) -> None:
    acme = customer()
    create_endpoint(acme.organization, "https://a.example/", kinds=[LOW])
    results = at_once([lambda: raised(acme).id] * 10)
    assert len(set(results)) == 1
    assert (Alert.objects.count(), AlertEmail.objects.count(), WebhookDelivery.objects.count()) == (1, 1, 1)


@pytest.mark.parametrize(("key", "subject"), [("", "x"), ("k" * 201, "x"), ("k", ""), ("k", " \n")])
def test_what_cannot_be_is_refused(acme: Customer, key: str, subject: str) -> None:
    with pytest.raises(InvalidInput):
        raise_alert(acme.organization.id, LOW, key=key, subject=subject)


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("The key “a\nb” is paused", "The key “a b” is paused"),
        ("a\r\n\tBcc: x\u2028y\u202ez\x1b[31m", "a Bcc: x y z [31m"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("xy " * 100, "xy " * 66 + "x…"),
    ],
)
def test_whatever_a_name_brings_the_subject_is_one_line_that_fits(acme: Customer, subject: str, told: str) -> None:
    alert = raise_alert(acme.organization.id, LOW, key="k", subject=subject)
    alert.refresh_from_db()
    assert alert.subject == told
