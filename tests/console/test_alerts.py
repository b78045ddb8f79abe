"""Alerts in the console: everybody's to see, the operator's own to note; and paused keys that are resumed."""

from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse

from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertKind
from apps.keys.models import ApiKey
from apps.keys.pausing import pause_key
from tests.console.cast import Rows, limit_fields

LIST = "/console/billing/alert/"


def test_the_list_tells_whose_alerts_were_sent(console: Client, rows: Rows) -> None:
    raise_alert(None, AlertKind.LEDGER_PROOF_FAILED, key="proof", subject="A proof failed")
    page = console.get(LIST).content.decode()
    for words in ("A proof failed", "Operator", "Credit is low at Acme", "0 of 1 sent"):
        assert words in page
    own = console.get(LIST, {"audience": "operator"}).content.decode()
    assert "A proof failed" in own
    assert "Credit is low at Acme" not in own
    assert "A proof failed" not in console.get(LIST, {"audience": "customers"}).content.decode()


def test_operators_note_their_own_alerts_and_not_those_of_customers(console: Client, rows: Rows) -> None:
    own = raise_alert(None, AlertKind.LEDGER_PROOF_FAILED, key="proof", subject="A proof failed")
    console.post(LIST, {"action": "take_note", "_selected_action": [own.pk, rows.alert.pk]})
    noted = Alert.objects.exclude(acknowledged_at=None)
    assert [(alert.pk, alert.acknowledged_by) for alert in noted] == [(own.pk, "operator@example.com")]
    assert "A proof failed" not in console.get(LIST, {"noted": "no"}).content.decode()


def test_a_paused_key_is_resumed_after_a_question(console: Client, rows: Rows) -> None:
    page = reverse("console:keys_apikey_resume", args=[quote(rows.key.pk)])
    assert console.get(page).status_code == 403, "it is not paused"
    pause_key(rows.key.pk, reason="6.00 USD within 5 minutes")
    assert "Paused" in console.get("/console/keys/apikey/").content.decode()
    assert "6.00 USD within 5 minutes" in console.get(page).content.decode()
    assert ApiKey.objects.get(pk=rows.key.pk).paused_at is not None
    assert console.post(page).status_code == 302
    assert ApiKey.objects.get(pk=rows.key.pk).paused_at is None


def test_keys_and_plans_get_a_brake_and_a_priority(console: Client, rows: Rows) -> None:
    fields = limit_fields(brake_nanos="2.50", brake_minutes="10", priority="2")
    console.post(reverse("console:keys_apikey_change", args=[quote(rows.key.pk)]), fields)
    key = ApiKey.objects.get(pk=rows.key.pk)
    assert (key.brake_nanos, key.brake_minutes, key.priority) == (2_500_000_000, 10, 2)
    console.post(reverse("console:accounts_plan_change", args=[rows.plan.pk]), {**fields, "name": "Starter"})
    rows.plan.refresh_from_db()
    assert (rows.plan.brake_nanos, rows.plan.brake_minutes, rows.plan.priority) == (2_500_000_000, 10, 2)
