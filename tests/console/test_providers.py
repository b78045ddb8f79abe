"""Providers: their API keys go in and never come out."""

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from apps.catalog.credentials import open_credential, store_credential
from apps.catalog.models import Provider
from apps.console.credentials import credential_state
from tests.console.cast import Rows

CANARY = "sk-canary-4711-do-not-show"
CHANGE = "/console/catalog/provider/local/change/"


@pytest.fixture
def provider(rows: Rows) -> Provider:
    """A provider with a stored API key."""
    store_credential(rows.provider, CANARY)
    rows.provider.save()
    return rows.provider


def fields(provider: Provider, **changed: str) -> dict[str, str]:
    sent = {
        "id": provider.pk,
        "name": provider.name,
        "dialect": provider.dialect,
        "output_limit_field": provider.output_limit_field,
        "base_url": provider.base_url,
        "options": "\n".join(f"{name}: {value}" for name, value in provider.options.items()),
        "api_key": "",
        "api_key_env": provider.api_key_env,
        "enabled": "on",
    }
    return {**sent, **changed}


def saved(provider: Provider) -> Provider:
    return Provider.objects.get(pk=provider.pk)


def errors_of(response: Any) -> dict[str, list[str]]:
    assert response.status_code == 200
    return dict(response.context["adminform"].form.errors)


def test_a_new_provider_keeps_its_key_sealed(console: Client) -> None:
    provider = Provider(pk="fresh", name="Fresh", base_url="https://api.fresh.example/v1/")
    answer = console.post("/console/catalog/provider/add/", fields(provider, api_key=CANARY))
    assert answer.status_code == 302
    stored = saved(provider)
    assert open_credential(stored) == CANARY
    assert CANARY not in stored.credential
    assert stored.base_url == "https://api.fresh.example/v1"


def test_no_page_ever_shows_the_key_or_its_sealed_form(console: Client, provider: Provider) -> None:
    pages = [
        "/console/",
        "/console/catalog/provider/",
        CHANGE,
        "/console/catalog/provider/local/history/",
        "/console/catalog/provider/local/delete/",
        "/console/search/?s=local&extended=1",
        "/console/catalog/model/acme_2Fsmall-1/change/",
    ]
    texts = [console.get(page).content.decode() for page in pages]
    texts.append(console.post(CHANGE, fields(provider, api_key=CANARY), follow=True).content.decode())
    texts.append(console.post(CHANGE, fields(provider, api_key=CANARY, name="")).content.decode())
    texts += [entry.change_message for entry in LogEntry.objects.all()]
    assert LogEntry.objects.count() == 1
    sealed = {provider.credential, saved(provider).credential}
    for text in texts:
        assert CANARY not in text
        assert not any(secret in text for secret in sealed)
    assert "Stored" in texts[1]


def test_leaving_the_field_empty_keeps_the_key(console: Client, provider: Provider) -> None:
    console.post(CHANGE, fields(provider, name="Renamed"))
    assert saved(provider).name == "Renamed"
    assert open_credential(saved(provider)) == CANARY


def test_a_new_path_on_the_same_host_keeps_the_key(console: Client, provider: Provider) -> None:
    console.post(CHANGE, fields(provider, base_url="http://127.0.0.1:9/v2"))
    assert open_credential(saved(provider)) == CANARY


@pytest.mark.parametrize("base_url", ["http://evil.example:9/v1", "https://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"])
def test_another_host_drops_the_key_and_says_so(console: Client, provider: Provider, base_url: str) -> None:
    answer = console.post(CHANGE, fields(provider, base_url=base_url), follow=True)
    assert saved(provider).base_url == base_url
    assert saved(provider).credential == ""
    assert "The stored API key was removed" in answer.content.decode()


def test_another_host_with_a_new_key_takes_the_new_one(console: Client, provider: Provider) -> None:
    answer = console.post(CHANGE, fields(provider, base_url="https://new.example/v1", api_key="sk-new"), follow=True)
    assert open_credential(saved(provider)) == "sk-new"
    assert "was removed" not in answer.content.decode()


def test_the_key_can_be_removed(console: Client, provider: Provider) -> None:
    console.post(CHANGE, fields(provider, remove_api_key="on"))
    assert saved(provider).credential == ""


def test_entering_and_removing_a_key_at_once_is_refused(console: Client, provider: Provider) -> None:
    errors = errors_of(console.post(CHANGE, fields(provider, remove_api_key="on", api_key="sk-new")))
    assert list(errors) == ["remove_api_key"]
    assert open_credential(saved(provider)) == CANARY


@pytest.mark.parametrize(
    "base_url",
    ["ftp://api.example/v1", "https://user:pass@api.example/v1", "https://api.example/v1?key=1", "api.example", ""],
)
def test_addresses_that_cannot_work_are_refused(console: Client, provider: Provider, base_url: str) -> None:
    assert "base_url" in errors_of(console.post(CHANGE, fields(provider, base_url=base_url)))


@pytest.mark.parametrize("name", ["CRUN_ENCRYPTION_KEYS", "crun_secret_key", "DATABASE_URL", "REDIS_URL"])
def test_our_own_secrets_are_no_api_keys(console: Client, provider: Provider, name: str) -> None:
    assert "api_key_env" in errors_of(console.post(CHANGE, fields(provider, api_key_env=name)))


@pytest.mark.parametrize("api_key", ["sk-two words", "sk-ümlaut", "sk-line\nbreak"])
def test_keys_that_no_header_can_carry_are_refused(console: Client, provider: Provider, api_key: str) -> None:
    answer = console.post(CHANGE, fields(provider, api_key=api_key))
    assert "api_key" in errors_of(answer)
    assert api_key not in answer.content.decode()


def test_where_the_key_comes_from_is_told(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    assert credential_state(provider).label == "Stored"
    provider.base_url = "https://moved.example/v1"
    assert credential_state(provider).label == "Stored, but cannot be opened"
    assert not credential_state(provider).is_usable
    provider.credential = ""
    assert credential_state(provider).label == "No key"
    assert credential_state(provider).is_usable
    provider.api_key_env = "LOCAL_KEY"
    monkeypatch.delenv("LOCAL_KEY", raising=False)
    assert credential_state(provider).label == "LOCAL_KEY is not set"
    assert not credential_state(provider).is_usable
    monkeypatch.setenv("LOCAL_KEY", CANARY)
    assert credential_state(provider).label == "From LOCAL_KEY"
    assert credential_state(provider).is_usable


def test_the_id_stays(console: Client, provider: Provider) -> None:
    console.post(CHANGE, fields(provider, id="other"))
    assert list(Provider.objects.values_list("id", flat=True)) == ["local"]


def test_only_a_provider_without_routes_and_own_keys_can_be_deleted(console: Client, provider: Provider) -> None:
    delete = reverse("console:catalog_provider_delete", args=["local"])
    assert console.post(delete, {"post": "yes"}).status_code == 403
    provider.routes.all().delete()
    assert console.post(delete, {"post": "yes"}).status_code == 403
    provider.own_credentials.all().delete()
    assert console.post(delete, {"post": "yes"}).status_code == 302
    assert not Provider.objects.exists()


def test_gateways_are_told_of_every_change(
    console: Client, provider: Provider, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    switch_off = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": "local", "_save": "Save"}
    for act in (
        lambda: console.post(CHANGE, fields(provider, name="Renamed")),
        lambda: console.post("/console/catalog/provider/", switch_off),
        lambda: console.post("/console/catalog/provider/local/delete/", {"post": "yes"}),
    ):
        with django_capture_on_commit_callbacks(execute=True):
            assert act().status_code == 302
        assert announcements() == ["catalog"]
        provider.routes.all().delete()
        provider.own_credentials.all().delete()
    assert not Provider.objects.exists()


def test_the_field_of_the_output_limit_can_be_chosen(console: Client, provider: Provider) -> None:
    assert "output_limit_field" in console.get(CHANGE).content.decode()
    console.post(CHANGE, fields(provider, output_limit_field="max_completion_tokens"))
    assert saved(provider).output_limit_field == "max_completion_tokens"
    answer = console.post(CHANGE, fields(provider, output_limit_field="max_output"))
    assert "output_limit_field" in errors_of(answer)


def test_options_are_written_a_line_each_and_checked_for_their_dialect(console: Client, provider: Provider) -> None:
    assert "region (required)" in console.get(CHANGE).content.decode()
    console.post(CHANGE, fields(provider, dialect="azure", options=" api_version: 2024-10-21 \n\nauth:entra"))
    assert saved(provider).options == {"api_version": "2024-10-21", "auth": "entra"}
    page = console.get(CHANGE).content.decode()
    assert "api_version: 2024-10-21\nauth: entra</textarea>" in page
    console.post(CHANGE, fields(saved(provider), name="Renamed"))
    assert saved(provider).options == {"api_version": "2024-10-21", "auth": "entra"}
    console.post(CHANGE, fields(saved(provider), dialect="openai", options=""))
    assert saved(provider).options == {}


@pytest.mark.parametrize(
    ("dialect", "options", "problem"),
    [
        ("bedrock", "", "region is required for the dialect bedrock: an AWS region such as eu-central-1."),
        ("bedrock", "region: Frankfurt", "region must be an AWS region such as eu-central-1."),
        (
            "openai",
            "region: eu-central-1",
            "region is no option of the dialect openai (known: completions, custom_tools, tools, max_tool_calls).",
        ),
        ("azure", "auth = entra", "Write each option as name: value, on a line of its own."),
        ("azure", "auth:", "Write each option as name: value, on a line of its own."),
        ("azure", "auth: entra\nauth: api-key", "auth stands there twice."),
        ("anthropic", "beta: " + "a" * 201, "beta must be names of beta features with commas between them."),
    ],
)
def test_options_that_cannot_work_are_refused(
    console: Client, provider: Provider, dialect: str, options: str, problem: str
) -> None:
    answer = console.post(CHANGE, fields(provider, dialect=dialect, options=options))
    assert errors_of(answer)["options"] == [problem]
    assert saved(provider).options == {}
