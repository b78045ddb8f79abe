"""The pages of alerts, webhooks and the brake, as the members of an organization use them."""

import re
from collections.abc import Callable

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from apps.billing.alerts.endpoints import Try, conclude, lease_deliveries, live_secrets
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import Alert, AlertKind, AlertSettings, WebhookDelivery, WebhookEndpoint
from apps.keys.pausing import pause_key
from tests.portal.conftest import Cast

ALERTS, HOOKS = "/o/acme/alerts/", "/o/acme/webhooks/"
FORM = {"url": "https://new.example.com/x", "description": "Pager", "kinds": ["key.paused"]}


def test_an_alert_is_listed_and_noted_once_by_name(cast: Cast, client_of: Callable[[str], Client]) -> None:
    finance = client_of("finance")
    assert "Your credit is low" in finance.get(ALERTS).content.decode()
    assert finance.post(f"{ALERTS}{cast.alert.id}/acknowledge/").status_code == 302
    client_of("owner").post(f"{ALERTS}{cast.alert.id}/acknowledge/")
    alert = Alert.objects.get(pk=cast.alert.id)
    assert alert.acknowledged_by == "finance@example.com"
    assert "noted by finance@example.com" in finance.get(ALERTS).content.decode()


def test_all_are_noted_up_to_the_newest_that_was_shown(cast: Cast, owner: Client) -> None:
    newer = raise_alert(cast.organization.id, AlertKind.SPEND_ANOMALY, key="n", subject="Newer")
    owner.post(f"{ALERTS}acknowledge/", {"newest": cast.alert.id})
    newer.refresh_from_db()
    assert newer.acknowledged_at is None
    assert Alert.objects.get(pk=cast.alert.id).acknowledged_at is not None


@pytest.mark.parametrize("role", ["developer", "viewer"])
def test_who_may_not_see_the_balance_sees_no_alerts_about_it(
    cast: Cast, client_of: Callable[[str], Client], role: str
) -> None:
    raise_alert(cast.organization.id, AlertKind.KEY_PAUSED, key="p", subject="A key is paused")
    page = client_of(role).get(ALERTS).content.decode()
    assert "A key is paused" in page
    assert "Your credit is low" not in page
    assert "Take note" not in page


def test_nobody_sees_or_notes_the_alerts_of_others(cast: Cast, client_of: Callable[[str], Client]) -> None:
    stranger = client_of("stranger")
    assert "Your credit is low" not in stranger.get("/o/elsewhere/alerts/").content.decode()
    assert stranger.post(f"/o/elsewhere/alerts/{cast.alert.id}/acknowledge/").status_code == 404
    assert stranger.get(f"/o/elsewhere/webhooks/{cast.endpoint.id}/").status_code == 404
    for act in ("secret", "switch", "test", "delete"):
        assert stranger.post(f"/o/elsewhere/webhooks/{cast.endpoint.id}/{act}/").status_code == 404
    assert stranger.post(f"/o/elsewhere/webhooks/messages/{cast.message.id}/replay/").status_code == 404
    assert stranger.post(f"/o/elsewhere/keys/{cast.key.id}/resume/").status_code == 404
    assert WebhookEndpoint.objects.filter(pk=cast.endpoint.id, enabled=True).exists()


def test_settings_are_saved_and_shown_again(cast: Cast, owner: Client) -> None:
    form = {
        "low_balance_nanos": "12.50",
        "recipients": "ops@acme.example\r\n\r\nlead@acme.example",
        "mailed_kinds": ["credit.low"],
    }
    assert owner.post(f"{ALERTS}settings/", form).status_code == 302
    saved = AlertSettings.objects.get()
    assert (saved.low_balance_nanos, saved.recipients) == (12_500_000_000, ["lead@acme.example", "ops@acme.example"])
    assert AlertKind.CREDIT_LOW not in saved.muted_kinds
    assert AlertKind.KEY_PAUSED in saved.muted_kinds
    page = owner.get(ALERTS).content.decode()
    assert 'value="12.50"' in page
    assert re.findall(r'value="([a-z_.]+)" id="[a-z_0-9]+" checked', page) == ["credit.low"]
    owner.post(f"{ALERTS}settings/", {"low_balance_nanos": "", "recipients": ""})
    saved.refresh_from_db()
    assert (saved.low_balance_nanos, saved.recipients) == (None, [])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"low_balance_nanos": "-1"}, "cannot be negative"),
        ({"low_balance_nanos": "ten"}, "not an amount"),
        ({"recipients": "nobody"}, "is no e-mail address"),
        ({"recipients": "\n".join(f"a{number}@b.example" for number in range(11))}, "at most 10"),
        ({"mailed_kinds": ["weather"]}, "not one of the available choices"),
    ],
)
def test_wrong_settings_are_explained_and_not_saved(
    cast: Cast, owner: Client, wrong: dict[str, object], words: str
) -> None:
    answer = owner.post(f"{ALERTS}settings/", wrong)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert not AlertSettings.objects.exists()


def test_an_endpoint_shows_its_secret_once(cast: Cast, owner: Client) -> None:
    answer = owner.post(HOOKS, FORM)
    secret = re.search(r"whsec_[\w+/=]+", answer.content.decode())
    assert secret is not None
    assert "no-store" in answer.headers["Cache-Control"]
    endpoint = WebhookEndpoint.objects.get(description="Pager")
    assert live_secrets(endpoint, timezone.now()) == [secret.group()]
    assert "whsec_" not in owner.get(f"{HOOKS}{endpoint.id}/").content.decode()
    assert "new.example.com" in owner.get(HOOKS).content.decode()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"url": "http://hooks.example.com/"}, "begins with https://"),
        ({"url": "https://127.0.0.1/"}, "not a public one"),
        ({"url": "https://[::ffff:10.0.0.1]/"}, "not a public one"),
        ({"url": "https://localhost/"}, "a full name"),
        ({"url": ""}, "This field is required"),
        ({"kinds": []}, "Choose at least one event"),
        ({"kinds": ["ledger.proof_failed"]}, "not one of the available choices"),
    ],
)
def test_wrong_endpoints_are_explained_and_not_made(
    cast: Cast, owner: Client, wrong: dict[str, object], words: str
) -> None:
    answer = owner.post(HOOKS, {**FORM, **wrong})
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert WebhookEndpoint.objects.count() == 1


def test_an_endpoint_is_changed_switched_and_deleted(cast: Cast, owner: Client) -> None:
    page = f"{HOOKS}{cast.endpoint.id}/"
    assert owner.post(page, {**FORM, "url": "https://127.0.0.1/"}).status_code == 422
    assert owner.post(page, FORM).status_code == 302
    owner.post(f"{page}switch/", {"on": "no"})
    endpoint = WebhookEndpoint.objects.get()
    assert (endpoint.url, endpoint.event_kinds, endpoint.enabled) == (FORM["url"], ["key.paused"], False)
    assert "the endpoint is off" in owner.post(f"{page}test/", follow=True).content.decode().lower()
    owner.post(f"{page}switch/", {"on": "yes"})
    assert WebhookEndpoint.objects.get().enabled
    assert owner.get(f"{page}delete/").status_code == 200
    assert WebhookEndpoint.objects.exists()
    owner.post(f"{page}delete/")
    assert not WebhookEndpoint.objects.exists()


def test_a_secret_is_rotated_and_the_old_one_ended(cast: Cast, owner: Client) -> None:
    page = f"{HOOKS}{cast.endpoint.id}/"
    assert "whsec_" in owner.post(f"{page}secret/").content.decode()
    cast.endpoint.refresh_from_db()
    assert len(live_secrets(cast.endpoint, timezone.now())) == 2
    assert "24 hours" in owner.post(f"{page}secret/", follow=True).content.decode()
    owner.post(f"{page}secret/", {"end": "yes"})
    cast.endpoint.refresh_from_db()
    assert len(live_secrets(cast.endpoint, timezone.now())) == 1


def test_tries_are_listed_and_a_failed_message_is_sent_again(cast: Cast, owner: Client) -> None:
    page = f"{HOOKS}{cast.endpoint.id}/"
    assert owner.post(f"{page}test/").status_code == 302
    (leased, _) = lease_deliveries(5, timezone.now())
    conclude(leased, Try(timezone.now(), 503, "answered 503", 41))
    assert "answered 503 · 41 ms" in owner.get(page).content.decode()
    replay = f"{HOOKS}messages/{leased.id}/replay/"
    assert "on its way already" in owner.post(replay, follow=True).content.decode()
    WebhookDelivery.objects.filter(pk=leased.id).update(state="failed")
    assert "Send again" in owner.get(page).content.decode()
    owner.post(replay)
    assert WebhookDelivery.objects.get(pk=leased.id).state == "pending"


def test_a_paused_key_says_why_and_one_click_resumes_it(cast: Cast, client_of: Callable[[str], Client]) -> None:
    pause_key(cast.key.id, reason="6.00 USD within 5 minutes")
    developer = client_of("developer")
    page = developer.get("/o/acme/keys/").content.decode()
    assert "Paused" in page
    assert "6.00 USD within 5 minutes" in page
    assert f"/o/acme/keys/{cast.key.id}/resume/" not in client_of("viewer").get("/o/acme/keys/").content.decode()
    assert developer.get(f"/o/acme/keys/{cast.key.id}/resume/").status_code == 405
    assert "works again" in developer.post(f"/o/acme/keys/{cast.key.id}/resume/", follow=True).content.decode()
    cast.key.refresh_from_db()
    assert cast.key.paused_at is None


def test_a_brake_is_set_shown_and_checked(cast: Cast, owner: Client) -> None:
    page = f"/o/acme/keys/{cast.key.id}/brake/"
    assert owner.get(page).status_code == 200
    assert owner.post(page, {"brake_usd": "2.50", "brake_minutes": "61"}).status_code == 422
    assert owner.post(page, {"brake_usd": "x", "brake_minutes": "5"}).status_code == 422
    for amount, words in (("-1", "cannot be negative; 0 means that the key is never paused"), ("1e3", "not an amount")):
        assert words in owner.post(page, {"brake_usd": amount, "brake_minutes": "5"}).content.decode()
    large = owner.post(page, {"brake_usd": "9000001", "brake_minutes": "5"}).content.decode()
    assert "The amount of a brake is at most 9,000,000 USD" in large
    assert owner.post(page, {"brake_usd": "2.50", "brake_minutes": "10"}).status_code == 302
    assert "pauses above 2.50 USD in 10 minutes" in owner.get("/o/acme/keys/").content.decode()


def test_a_member_lowers_the_priority_of_a_key_and_raises_it_no_higher_than_the_operator(
    cast: Cast, owner: Client
) -> None:
    page = f"/o/acme/keys/{cast.key.id}/brake/"
    for wanted, status, kept in (("2", 422, None), ("1", 422, None), ("0", 302, 0), ("", 302, None)):
        assert owner.post(page, {"brake_minutes": "5", "priority": wanted}).status_code == status
        cast.key.refresh_from_db()
        assert cast.key.priority == kept
    owner.post(page, {"brake_minutes": "5", "priority": "0"})
    assert "low priority" in owner.get("/o/acme/keys/").content.decode()
    assert settings.WEBHOOKS_ALLOW_PRIVATE is False


def test_the_mark_of_low_credit_has_words_of_its_own(owner: Client) -> None:
    answer = owner.post("/o/acme/alerts/settings/", {"low_balance_nanos": "-1", "recipients": ""})
    assert "The mark of low credit cannot be negative; 0 means that you are told" in answer.content.decode()
