"""The pages of guardrails: a rule is made, tried, changed, switched and deleted, and stays with its organization."""

from typing import Any

import pytest
from django.test import Client

from apps.policies.guardrails import Draft, add_guardrail
from apps.policies.models import GuardrailRule
from apps.policies.rules import KeywordsCheck, PatternCheck, PersonalDataCheck
from tests.announcements import listening
from tests.portal.conftest import Cast

URL = "/o/acme/guardrails/"
COMMON = {"name": "No birds", "mode": "on", "direction": "both", "action": "block", "key": ""}
MADE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("models", {"allowed": "openai/*\n", "denied": " openai/o1 \nopenai/o1"},
     {"allowed": ["openai/*"], "denied": ["openai/o1"]}),
    ("pattern", {"pattern": r"\bsk-\w{8}\b", "ignore_case": "on"}, {"pattern": r"\bsk-\w{8}\b", "ignore_case": True}),
    ("keywords", {"words": "canary\nblue bird\ncanary"}, {"words": ["canary", "blue bird"]}),
    ("personal_data", {"kinds": ["email", "card"], "phone_region": "de"},
     {"kinds": ["email", "card"], "phone_region": "DE"}),
]  # fmt: skip


def made(cast: Cast, check: Any = None, **changes: Any) -> GuardrailRule:
    values: dict[str, Any] = {"name": "No birds", "check": check or KeywordsCheck(("canary",))}
    row: GuardrailRule = add_guardrail(cast.organization, Draft(**(values | changes)))
    return row


@pytest.fixture(autouse=True)
def no_rule(cast: Cast) -> None:
    """The stage is empty."""
    cast.guardrail.delete()


def test_without_rules_the_page_says_what_they_are_for(owner: Client) -> None:
    page = owner.get(URL).content.decode()
    assert "No rule yet" in page and "Regular expression" in page and "Try a text" in page
    assert "Moderation" not in page, "nobody has set that up"


@pytest.mark.parametrize(("kind", "typed", "stored"), MADE)
def test_a_rule_of_each_kind_is_made_and_changed(
    owner: Client, cast: Cast, kind: str, typed: dict[str, Any], stored: dict[str, Any],
    django_capture_on_commit_callbacks: Any,
) -> None:  # fmt: skip
    assert owner.get(f"{URL}new/{kind}/").status_code == 200
    with listening() as heard:
        with django_capture_on_commit_callbacks(execute=True):
            assert owner.post(f"{URL}new/{kind}/", COMMON | typed).status_code == 302
        assert heard() == [f"keys:{cast.organization.id}"]
    (row,) = GuardrailRule.objects.for_organization(cast.organization.id)
    assert (row.name, row.kind, row.mode, row.check_settings) == ("No birds", kind, "on", stored)
    assert row.created_by == cast.people["owner"]
    assert "No birds" in owner.get(URL).content.decode()
    page = owner.get(f"{URL}{row.pk}/").content.decode()
    assert "No birds" in page
    assert owner.post(f"{URL}{row.pk}/", COMMON | typed | {"name": "Other", "mode": "log"}).status_code == 302
    row.refresh_from_db()
    assert (row.name, row.mode, row.check_settings) == ("Other", "log", stored)


@pytest.mark.parametrize(
    ("kind", "typed", "said"),
    [
        ("pattern", {"pattern": "abc[z-a]"}, "invalid character class range at character 5"),
        ("pattern", {"pattern": "a*"}, "also matches an empty text"),
        ("keywords", {"words": " \n "}, "This field is required"),
        ("personal_data", {"kinds": [], "phone_region": ""}, "Choose at least one"),
        ("personal_data", {"kinds": ["phone"], "phone_region": "XX"}, "is no country code"),
        ("models", {"allowed": "", "denied": ""}, "No model is named"),
        ("models", {"allowed": "a*b", "denied": ""}, "with a * at its end only"),
        ("keywords", {"words": "x", "name": ""}, "This field is required"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(owner: Client, kind: str, typed: dict[str, Any], said: str) -> None:
    response = owner.post(f"{URL}new/{kind}/", COMMON | typed)
    assert response.status_code == 422 and said in response.content.decode()
    assert not GuardrailRule.objects.exists()


def test_a_rule_for_one_key_names_it_and_no_stranger_s(owner: Client, cast: Cast) -> None:
    assert owner.post(f"{URL}new/keywords/", COMMON | {"words": "x", "key": cast.stranger_key.pk}).status_code == 422
    assert owner.post(f"{URL}new/keywords/", COMMON | {"words": "x", "key": cast.key.pk}).status_code == 302
    assert GuardrailRule.objects.get().key == cast.key
    page = owner.get(URL).content.decode()
    assert cast.key.name in page and cast.stranger_key.name not in page


@pytest.mark.parametrize(
    ("mode", "check", "text", "said"),
    [
        ("on", KeywordsCheck(("canary",)), "the canary", "Blocked by “No birds”"),
        ("log", KeywordsCheck(("canary",)), "the canary", "It passes, as it stands below."),
        ("off", KeywordsCheck(("canary",)), "the canary", "No rule found anything"),
        ("on", KeywordsCheck(("canary",)), "the dog", "No rule found anything"),
        ("on", PersonalDataCheck(("email",)), "to ann@example.com", "to [EMAIL_1]"),
    ],
)
def test_a_text_is_tried(owner: Client, cast: Cast, mode: Any, check: Any, text: str, said: str) -> None:
    made(cast, check, mode=mode, action="redact" if isinstance(check, PersonalDataCheck) else "block")
    response = owner.post(URL, {"text": text, "side": "input", "key": ""})
    assert response.status_code == 200 and said in response.content.decode()
    assert "no-store" in response["Cache-Control"]


def test_a_key_s_rule_is_tried_with_that_key_only(owner: Client, cast: Cast) -> None:
    made(cast, key_id=cast.key.pk)
    assert "No rule found" in owner.post(URL, {"text": "canary", "side": "input", "key": ""}).content.decode()
    assert "Blocked by" in owner.post(URL, {"text": "canary", "side": "input", "key": cast.key.pk}).content.decode()
    assert owner.post(URL, {"text": "x", "side": "input", "key": cast.stranger_key.pk}).status_code == 422
    assert owner.post(URL, {"text": "x" * 20_001, "side": "input", "key": ""}).status_code == 422


def test_a_rule_is_switched_and_deleted(owner: Client, cast: Cast) -> None:
    row = made(cast)
    owner.post(f"{URL}{row.pk}/mode/", {"mode": "log"})
    row.refresh_from_db()
    assert row.mode == "log"
    owner.post(f"{URL}{row.pk}/mode/", {"mode": "nonsense"})
    row.refresh_from_db()
    assert row.mode == "log"
    assert "Delete “No birds”?" in owner.get(f"{URL}{row.pk}/delete/").content.decode()
    owner.post(f"{URL}{row.pk}/delete/")
    assert not GuardrailRule.objects.exists()


def test_a_stranger_s_organization_does_not_open_our_rules(client_of: Any, cast: Cast) -> None:
    row = made(cast)
    stranger = client_of("stranger")
    for path in ("", "mode/", "delete/"):
        url = f"/o/{cast.stranger_organization.slug}/guardrails/{row.pk}/{path}"
        assert stranger.post(url, COMMON | {"words": "x", "mode": "off"}).status_code == 404
    row.refresh_from_db()
    assert row.mode == "on"


def test_an_unknown_kind_is_404_and_so_is_moderation_that_nobody_set_up(owner: Client) -> None:
    assert owner.get(f"{URL}new/nonsense/").status_code == 404
    assert owner.get(f"{URL}new/moderation/").status_code == 404


def test_too_many_rules_and_too_large_expressions_together_are_refused(owner: Client, cast: Cast) -> None:
    for number in range(6):
        made(cast, PatternCheck("(?:abc|def){160}"), name=f"Large {number}", mode="on" if number < 5 else "off")
    large = GuardrailRule.objects.get(name="Large 5")
    response = owner.post(f"{URL}{large.pk}/mode/", {"mode": "on"}, follow=True)
    assert "steps together at most" in response.content.decode()
    for number in range(44):
        made(cast, name=f"Word {number}")
    response = owner.post(f"{URL}new/keywords/", COMMON | {"words": "x"})
    assert response.status_code == 422 and "50 guardrails at most" in response.content.decode()
