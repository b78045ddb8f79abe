"""Guardrails in the console: an operator sees them all, switches and deletes, and gateways hear of it."""

from typing import Any

from django.test import Client
from django.urls import reverse

from apps.policies.models import GuardrailRule
from tests.announcements import listening
from tests.console.cast import Rows

LIST = "/console/policies/guardrailrule/"


def test_the_list_tells_whose_rules_look_for_what(console: Client, rows: Rows) -> None:
    page = console.get(LIST).content.decode()
    assert "No birds" in page and rows.organization.name in page and "canary" in page


def test_switching_and_deleting_is_announced(
    console: Client, rows: Rows, django_capture_on_commit_callbacks: Any
) -> None:
    address = reverse("console:policies_guardrailrule_change", args=[rows.guardrail.pk])
    told = [f"keys:{rows.organization.id}"]
    with listening() as heard:
        with django_capture_on_commit_callbacks(execute=True):
            assert console.post(address, {"mode": "off", "name": "Hijacked"}).status_code == 302
        rows.guardrail.refresh_from_db()
        assert (rows.guardrail.mode, rows.guardrail.name) == ("off", "No birds")
        assert heard() == told
        with django_capture_on_commit_callbacks(execute=True):
            gone = reverse("console:policies_guardrailrule_delete", args=[rows.guardrail.pk])
            assert console.post(gone, {"post": "yes"}).status_code == 302
        assert heard() == told and not GuardrailRule.objects.exists()
