"""The webhook: what is not proven or contradicts our payment is answered with 400 and makes no credit."""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from django.core.checks import run_checks
from django.test import Client
from pytest_django import Settings

from apps.api.payments import MAX_BODY_BYTES
from apps.billing.ledger import balance_nanos
from apps.billing.models import Payment, PaymentMethod, WebhookInbox
from tests.billing import books
from tests.payments.conftest import USD, WEBHOOK, Till, deliver
from tests.payments.stripe_server import SECRET, Json, signature

pytestmark = pytest.mark.django_db
Change = Callable[[Json], Any]


def paid_events(till: Till) -> list[Json]:
    return till.account.pay(till.start(10).checkout_reference)


def credit_of(till: Till) -> int:
    return balance_nanos(till.owner.id)


@pytest.mark.parametrize(
    "header",
    ["", "t=1,v1=", "v1=ff", "nonsense", "t=x,v1=ff", "t=,v1=ff", "é", "t=1", f"t={'9' * 400},v1=ff"],
)
def test_what_is_not_signed_is_refused(till: Till, header: str) -> None:
    for event in paid_events(till):
        assert deliver(json.dumps(event), header=header).status_code == 400
    assert credit_of(till) == 0
    assert not WebhookInbox.objects.exists()


def test_a_signature_of_another_secret_or_payload_is_refused(till: Till) -> None:
    event = paid_events(till)[0]
    text = json.dumps(event)
    assert deliver(text, secret="whsec_" + "x" * 32).status_code == 400
    assert deliver(text, secret="").status_code == 400
    assert deliver(text.replace("1000", "9000"), header=signature(text, SECRET)).status_code == 400
    assert not WebhookInbox.objects.exists()


@pytest.mark.parametrize(("age_s", "status"), [(290, 200), (310, 400), (-290, 200), (-310, 400), (86_400, 400)])
def test_an_event_is_at_most_300_seconds_old(till: Till, age_s: int, status: int) -> None:
    text = json.dumps(paid_events(till)[0])
    assert deliver(text, at=time.time() - age_s).status_code == status
    assert credit_of(till) == (10 * USD if status == 200 else 0)


def test_while_secrets_are_rotated_both_count(till: Till, settings: Settings) -> None:
    settings.STRIPE_WEBHOOK_SECRETS = ["whsec_" + "n" * 32, SECRET]
    first, second = paid_events(till)
    assert deliver(json.dumps(first)).status_code == 200
    assert deliver(json.dumps(second), secret="whsec_" + "n" * 32).status_code == 200
    assert credit_of(till) == 10 * USD


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"id": "evt_1"}', b"{" * 5000])
def test_what_is_no_event_is_refused(till: Till, body: bytes) -> None:
    text = body.decode("utf-8", "replace")
    assert deliver(body, header=signature(text, SECRET)).status_code == 400


def test_a_body_has_a_bound(till: Till) -> None:
    assert deliver("x" * (MAX_BODY_BYTES + 1)).status_code == 413


def test_only_post_is_answered(till: Till) -> None:
    assert Client().get(WEBHOOK).status_code == 405


def inner(event: Json) -> Json:
    thing: Json = event["data"]["object"]
    return thing


MUTATIONS: dict[str, Change] = {
    "live instead of test": lambda event: event.update(livemode=True),
    "a higher amount": lambda event: inner(event).update(
        {name: 900_000 for name in ("amount", "amount_received", "amount_total") if name in inner(event)}
    ),
    "a lower amount": lambda event: inner(event).update(
        {name: 1 for name in ("amount", "amount_received", "amount_total") if name in inner(event)}
    ),
    "a negative amount": lambda event: inner(event).update(
        {name: -1000 for name in ("amount", "amount_received", "amount_total") if name in inner(event)}
    ),
    "an amount that is text": lambda event: inner(event).update(
        {name: "1000" for name in ("amount", "amount_received", "amount_total") if name in inner(event)}
    ),
    "another currency": lambda event: inner(event).update(currency="jpy"),
    "upper case": lambda event: inner(event).update(currency="USD"),
    "another customer": lambda event: inner(event).update(customer="cus_other"),
    "no customer": lambda event: inner(event).update(customer=None),
    "an unknown payment": lambda event: inner(event)["metadata"].update(crun_payment="pay_" + "0" * 32),
    "an unknown organization": lambda event: inner(event)["metadata"].update(crun_organization="org_" + "0" * 32),
    "no organization": lambda event: inner(event)["metadata"].pop("crun_organization"),
    "metadata of another kind": lambda event: inner(event).update(metadata=[]),
}


@pytest.mark.parametrize("which", [0, 1], ids=["payment_intent", "checkout_session"])
@pytest.mark.parametrize("name", list(MUTATIONS))
def test_d14_a_mutated_field_credits_nothing(till: Till, name: str, which: int) -> None:
    event = paid_events(till)[which]
    wrong = deepcopy(event)
    MUTATIONS[name](wrong)
    assert till.deliver(wrong).status_code == 400
    assert credit_of(till) == 0
    assert till.deliver(event | {"id": "evt_right"}).status_code == 200
    assert credit_of(till) == 10 * USD


def test_half_of_the_money_is_not_the_payment(till: Till) -> None:
    intent = paid_events(till)[0]
    for received in (0, 500, 999, 1001):
        inner(intent)["amount_received"] = received
        assert till.deliver(intent | {"id": f"evt_{received}"}).status_code == 400
    assert credit_of(till) == 0


def test_no_metadata_of_ours_is_nobodys_payment(till: Till) -> None:
    for event in paid_events(till):
        inner(event)["metadata"] = {"shop": "shoes"}
        answer = till.deliver(event)
        expected = (400, None) if event["type"].startswith("checkout") else (200, "ignored")
        assert (answer.status_code, answer.json().get("status")) == expected
    assert credit_of(till) == 0


def test_the_payment_of_one_organization_is_never_the_credit_of_another(till: Till) -> None:
    other = books.organization("Other")
    mine, theirs = till.start(10), till.start(10, owner=other)
    for event in till.account.pay(mine.checkout_reference):
        stolen = deepcopy(event)
        inner(stolen)["metadata"] = {"crun_payment": theirs.id, "crun_organization": other.id}
        assert till.deliver(stolen).status_code == 400
    assert balance_nanos(other.id) == 0


def test_a_try_of_one_payment_does_not_pay_another_of_the_same_organization(till: Till) -> None:
    first, second = till.start(10), till.start(10)
    intent, session = till.account.pay(first.checkout_reference)
    assert till.deliver(intent).status_code == 200
    for event in (intent, session):
        again = deepcopy(event) | {"id": f"{event['id']}_again"}
        inner(again)["metadata"]["crun_payment"] = second.id
        assert till.deliver(again).status_code == 400
    assert credit_of(till) == 10 * USD


def test_an_unpaid_page_is_no_payment(till: Till) -> None:
    _, session = paid_events(till)
    for status in ("unpaid", "no_payment_required"):
        inner(session)["payment_status"] = status
        assert till.deliver(session | {"id": f"evt_{status}"}).status_code == 200
    assert credit_of(till) == 0


def test_events_we_do_not_know_are_kept_and_ignored(till: Till) -> None:
    event = till.account.emit("invoice.created", {"id": "in_1", "object": "invoice", "number": 7})
    assert till.deliver(event).json() == {"received": True, "status": "ignored"}
    row = WebhookInbox.objects.get()
    assert (row.event_id, row.type, row.status, json.loads(row.payload)) == (
        event["id"],
        "invoice.created",
        "ignored",
        event,
    )


def test_an_event_is_kept_once_however_often_it_comes(till: Till) -> None:
    event = paid_events(till)[0]
    for _ in range(3):
        till.deliver(event)
    row = WebhookInbox.objects.get()
    assert (row.deliveries, row.attempts, row.status) == (3, 1, "done")


def test_what_was_refused_stays_in_the_inbox_with_its_reason(till: Till) -> None:
    event = paid_events(till)[0]
    inner(event)["currency"] = "eur"
    assert [till.deliver(event).status_code for _ in range(2)] == [400, 400]
    row = WebhookInbox.objects.get()
    assert (row.status, row.error, row.deliveries) == ("refused", "its currency is not that of our payment", 2)


def test_a_card_that_is_removed_at_stripe_is_removed_here(till: Till) -> None:
    till.paid(save_card=True)
    card = till.account.of("payment_method")[0]
    card["card"] = {"brand": "visa", "last4": "1881", "exp_month": 2, "exp_year": 2098}
    till.deliver(till.account.emit("payment_method.automatically_updated", card))
    assert str(PaymentMethod.objects.get()) == "Visa ending in 1881"
    till.deliver(till.account.emit("payment_method.detached", card))
    assert PaymentMethod.objects.get().removed_at is not None


def test_without_a_key_there_is_no_webhook(till: Till, settings: Settings) -> None:
    text = json.dumps(paid_events(till)[0])
    settings.STRIPE_SECRET_KEY = ""
    assert deliver(text).status_code == 404


@pytest.mark.parametrize("secrets", [[], [""], [" "], ["", " "]])
def test_an_empty_secret_opens_nothing(till: Till, settings: Settings, secrets: list[str]) -> None:
    text = json.dumps(paid_events(till)[0])
    settings.STRIPE_WEBHOOK_SECRETS = secrets
    for secret in ("", " ", SECRET):
        assert deliver(text, secret=secret).status_code == 503
    assert credit_of(till) == 0
    assert "billing.E001" in {message.id for message in run_checks()}


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("STRIPE_WEBHOOK_SECRETS", [SECRET, ""], "billing.E001"),
        ("STRIPE_WEBHOOK_SECRETS", ["short"], "billing.E001"),
        ("STRIPE_SECRET_KEY", "pk_test_123", "billing.E002"),
        ("STRIPE_API_URL", "http://stripe.example", "billing.E003"),
        ("TOP_UP_MIN_USD", 0, "billing.E004"),
        ("TOP_UP_MAX_USD", 1, "billing.E004"),
        ("AUTO_TOP_UP_MAX_FAILURES", 0, "billing.E004"),
    ],
)
def test_settings_that_make_no_sense_are_found(
    till: Till, settings: Settings, name: str, value: Any, found: str
) -> None:
    assert [message for message in run_checks() if str(message.id).startswith("billing.")] == []
    setattr(settings, name, value)
    assert found in {message.id for message in run_checks()}


def test_nothing_of_the_money_is_in_the_answer(till: Till) -> None:
    event = paid_events(till)[0]
    inner(event)["amount"] = 1
    answer = till.deliver(event)
    assert answer.json() == {"error": {"code": "payment_mismatch"}}
    assert Payment.objects.get().status == "pending"
