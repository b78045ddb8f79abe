"""API keys in the console: shown once, redacted ever after, limited at any time, revoked for good."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.accounts.models import User
from apps.accounts.organizations import create_organization, default_project
from apps.core.crypto import keyed_digests
from apps.core.limits import Limits
from apps.keys.issuing import create_key, revoke_key, set_limits
from apps.keys.keyformat import is_well_formed
from apps.keys.models import ApiKey
from tests.console.cast import Rows, limit_fields

LIST = "/console/keys/apikey/"
ADD = "/console/keys/apikey/add/"


def key_fields(rows: Rows, **changed: str) -> dict[str, str]:
    return {
        "project": rows.project.pk,
        "name": "Laptop",
        "expires_at_0": "",
        "expires_at_1": "",
        **limit_fields(),
        **changed,
    }


def secret_on(page: str) -> str:
    found = re.search(r'id="secret"[^>]*>(ak_\w+)<', page)
    assert found, "the page shows no key"
    return found.group(1)


def test_a_new_key_is_shown_once_and_works(console: Client, operator: User, rows: Rows) -> None:
    answer = console.post(ADD, key_fields(rows))
    secret = secret_on(answer.content.decode())
    assert is_well_formed(secret)
    assert "no-store" in answer.headers["Cache-Control"]
    key = ApiKey.objects.get(name="Laptop")
    assert (key.organization, key.project, key.created_by) == (rows.organization, rows.project, operator)
    assert key.digest in keyed_digests(secret, settings.KEY_PEPPERS)


def test_a_sandbox_key_is_made_by_its_switch_and_has_no_budget(console: Client, rows: Rows) -> None:
    assert secret_on(console.post(ADD, key_fields(rows, sandbox="on")).content.decode()).startswith("ak_test")
    refused = console.post(ADD, key_fields(rows, sandbox="on", budget_nanos="1"))
    assert "A sandbox key spends no money, so it has no budget." in refused.content.decode()
    assert ApiKey.objects.filter(sandbox=True).count() == 1


def test_the_secret_is_nowhere_afterwards(console: Client, rows: Rows) -> None:
    secret = secret_on(console.post(ADD, key_fields(rows)).content.decode())
    key = ApiKey.objects.get(name="Laptop")
    pages = [LIST, reverse("console:keys_apikey_change", args=[quote(key.pk)]), "/console/"]
    texts = [console.get(page).content.decode() for page in pages]
    assert key.redacted in texts[0]
    stored = [str(session.get_decoded()) for session in Session.objects.all()]
    logged = [f"{entry.object_repr}{entry.change_message}" for entry in LogEntry.objects.all()]
    assert len(logged) == 1
    assert not any(secret in text or key.digest in text for text in (*texts, *stored, *logged))


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"project": "proj_nobody"}, "project"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00:00"}, "expires_at"),
        ({"requests_per_minute": "0"}, "requests_per_minute"),
        ({"concurrency": "-1"}, "concurrency"),
        ({"budget_nanos": "-1"}, "budget_nanos"),
        ({"budget_nanos": "0.0000000001"}, "budget_nanos"),
        ({"budget_nanos": "1", "budget_period": "year"}, "budget_period"),
    ],
)
def test_a_key_that_cannot_be_is_refused(console: Client, rows: Rows, changed: dict[str, str], field: str) -> None:
    answer: Any = console.post(ADD, key_fields(rows, **changed))
    assert list(answer.context["adminform"].form.errors) == [field]
    assert ApiKey.objects.count() == 1


def test_a_new_key_can_have_limits(console: Client, rows: Rows) -> None:
    limited = {"budget_nanos": "12.5", "budget_period": "month", "requests_per_minute": "60"}
    console.post(ADD, key_fields(rows, **limited))
    expected = Limits(requests_per_minute=60, budget_nanos=12_500_000_000, budget_period="month")
    assert ApiKey.objects.get(name="Laptop").limits == expected


def test_only_the_limits_of_a_key_can_be_edited(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    page = reverse("console:keys_apikey_change", args=[quote(rows.key.pk)])
    other = default_project(create_organization("Other"))
    forged = {"name": "Mine", "digest": "p1$00", "revoked_at": "", "project": other.pk, "expires_at_0": "2030-01-01"}
    with django_capture_on_commit_callbacks(execute=True):
        answer = console.post(page, {**forged, **limit_fields(budget_nanos="0.000000001", concurrency="2")})
    assert answer.status_code == 302
    after = ApiKey.objects.get(pk=rows.key.pk)
    assert after.limits == Limits(concurrency=2, budget_nanos=1)
    unchanged = ("name", "digest", "revoked_at", "expires_at", "project_id", "organization_id")
    assert [getattr(after, name) for name in unchanged] == [getattr(rows.key, name) for name in unchanged]
    assert announcements() == [f"key:{rows.key.digest}"]
    assert 'value="0.000000001"' in console.get(page).content.decode()


def test_a_revoked_key_cannot_be_edited(console: Client, rows: Rows) -> None:
    set_limits(rows.key, Limits(budget_nanos=2_000_000_000))
    revoke_key(rows.key)
    page = reverse("console:keys_apikey_change", args=[quote(rows.key.pk)])
    assert "2.00 USD in all" in console.get(page).content.decode()
    assert console.post(page, limit_fields()).status_code == 403
    assert ApiKey.objects.get(pk=rows.key.pk).budget_nanos == 2_000_000_000


def test_looking_at_the_question_revokes_nothing(console: Client, rows: Rows) -> None:
    page = reverse("console:keys_apikey_revoke", args=[quote(rows.key.pk)])
    assert rows.key.redacted in console.get(page).content.decode()
    assert console.post(page).status_code == 200
    rows.key.refresh_from_db()
    assert rows.key.revoked_at is None


def test_revoking_needs_the_csrf_token(operator: User, rows: Rows) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator)
    page = reverse("console:keys_apikey_revoke", args=[quote(rows.key.pk)])
    assert strict.post(page, {"confirmed": "yes"}).status_code == 403


def test_a_confirmed_revocation_is_announced_and_noted(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    page = reverse("console:keys_apikey_revoke", args=[quote(rows.key.pk)])
    with django_capture_on_commit_callbacks(execute=True):
        answer = console.post(page, {"confirmed": "yes"}, follow=True)
    rows.key.refresh_from_db()
    assert rows.key.revoked_at is not None
    assert announcements() == [f"key:{rows.key.digest}"]
    assert "1 key revoked" in answer.content.decode()
    assert LogEntry.objects.get().object_id == rows.key.pk
    shown = console.get(reverse("console:keys_apikey_change", args=[quote(rows.key.pk)])).content.decode()
    assert "Revoked" in shown
    assert page not in shown


def test_several_keys_are_revoked_together(console: Client, rows: Rows) -> None:
    other = create_key(rows.project, name="Other").key
    kept = create_key(rows.project, name="Kept").key
    chosen = {"action": "revoke_selected", "_selected_action": [rows.key.pk, other.pk]}
    question = console.post(LIST, chosen).content.decode()
    assert rows.key.redacted in question
    assert kept.redacted not in question
    console.post(LIST, {**chosen, "confirmed": "yes"})
    working = ApiKey.objects.filter(revoked_at=None)
    assert list(working) == [kept]


def test_the_list_tells_the_state(console: Client, rows: Rows) -> None:
    expired = create_key(rows.project, name="Old", expires_at=timezone.now() + timedelta(seconds=60)).key
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    found = console.get(LIST).context["cl"].queryset
    assert {key.name: key.state_name for key in found} == {"Production": "Active", "Old": "Expired"}
    filtered = console.get(LIST, {"state": "Expired"}).context["cl"].queryset
    assert [key.name for key in filtered] == ["Old"]


def test_projects_are_suggested_with_their_organization(console: Client, rows: Rows) -> None:
    query = {"app_label": "keys", "model_name": "apikey", "field_name": "project", "term": "acme"}
    suggested = console.get(reverse("console:autocomplete"), query).json()["results"]
    assert suggested == [{"id": rows.project.pk, "text": "Acme / Default"}]
