"""A process that dies around an event: the money is credited once, because the event comes again or is found."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from django.db import connection

from apps.billing.ledger import balance_nanos
from apps.billing.models import WebhookInbox
from apps.billing.payments import inbox
from tests.billing import books
from tests.payments.conftest import USD, Till
from tests.payments.stripe_server import KEY, SECRET, Json, signature

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
RECEIVE = """
import sys, django
django.setup()
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
from apps.billing.payments import inbox
status = inbox.receive("stripe", sys.argv[2].encode(), sys.argv[3])
print(status)
"""


def receive_elsewhere(event: Json, url: str, **environment: str) -> int:
    """Another process gets the event; its exit code."""
    text = json.dumps(event)
    name = str(connection.settings_dict["NAME"])
    stripe = {"CRUN_STRIPE_SECRET_KEY": KEY, "CRUN_STRIPE_WEBHOOK_SECRETS": SECRET, "CRUN_STRIPE_API_URL": url}
    command = [sys.executable, "-c", RECEIVE, name, text, signature(text, SECRET)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **stripe, **environment}, check=False).returncode


def test_p16_killed_after_the_credit_and_before_the_answer_is_one_credit(till: Till) -> None:
    payment = till.start(10)
    paid, session = till.account.pay(payment.checkout_reference)
    assert receive_elsewhere(paid, till.account.url, CRUN_CRASH_POINT="P16") == 137
    assert balance_nanos(till.owner.id) == 10 * USD
    for event in (paid, session, paid):
        assert till.deliver(event).json()["status"] == "done"
    assert balance_nanos(till.owner.id) == 10 * USD
    assert books.failed_proofs() == []


def test_killed_after_the_event_was_kept_it_is_found(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = till.start(10)
    paid, _ = till.account.pay(payment.checkout_reference)

    def die(row_id: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inbox, "work_on", die)
    with pytest.raises(KeyboardInterrupt):
        inbox.receive("stripe", json.dumps(paid).encode(), signature(json.dumps(paid), SECRET))
    monkeypatch.undo()
    assert WebhookInbox.objects.get().status == "received"
    assert balance_nanos(till.owner.id) == 0
    WebhookInbox.objects.update(received_at=WebhookInbox.objects.get().received_at - inbox.FIRST_WAIT * 2)
    assert inbox.work_on_due() == 1
    assert balance_nanos(till.owner.id) == 10 * USD


def test_one_event_delivered_twenty_times_at_once_is_one_credit(till: Till) -> None:
    payment = till.start(10)
    paid, session = till.account.pay(payment.checkout_reference)
    results = books.at_once([partial(till.deliver, event) for event in (paid, session) for _ in range(10)])
    assert {result.status_code for result in results} == {200}
    assert balance_nanos(till.owner.id) == 10 * USD
    assert sum(WebhookInbox.objects.values_list("deliveries", flat=True)) == 20
    assert books.failed_proofs() == []


@pytest.mark.parametrize("secrets", ["", " ", ",", " , "])
def test_a_key_without_a_webhook_secret_refuses_to_start(secrets: str) -> None:
    environment = {**os.environ, "CRUN_STRIPE_SECRET_KEY": KEY, "CRUN_STRIPE_WEBHOOK_SECRETS": secrets}
    for command in (["-m", "crun.cli", "doctor"], ["-c", "import crun.asgi"]):
        ended = subprocess.run(
            [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode != 0
        assert "CRUN_STRIPE_WEBHOOK_SECRETS is empty" in ended.stderr
        assert KEY not in ended.stderr + ended.stdout
