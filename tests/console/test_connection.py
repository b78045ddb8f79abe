"""The connection test against a real HTTP server: what it sends, what it says, what it keeps to itself."""

import pytest
from django.test import Client

from apps.catalog.credentials import store_credential
from apps.catalog.models import Dialect, Provider, Route
from apps.console import connection
from apps.console.connection import check_connection
from tests.console.cast import Rows
from tests.console.upstream import ListingServer

CANARY = "sk-canary-4711-do-not-show"


@pytest.fixture
def provider(rows: Rows) -> Provider:
    return rows.provider


def aim(provider: Provider, base_url: str, api_key: str = CANARY) -> Provider:
    provider.base_url = base_url
    store_credential(provider, api_key)
    provider.save()
    return provider


def test_a_good_answer_is_counted_and_compared_with_the_routes(provider: Provider, listing: ListingServer) -> None:
    report = check_connection(aim(provider, listing.base_url("200")))
    assert report.level == "success"
    assert report.headline.startswith("Connected: 2 models listed")
    assert listing.seen[0]["path"] == "/200/v1/models"
    assert listing.seen[0]["authorization"] == f"Bearer {CANARY}"


def test_routes_to_unknown_models_are_named(provider: Provider, rows: Rows, listing: ListingServer) -> None:
    Route.objects.create(model=rows.model, provider=provider, upstream_model="gone-1")
    Route.objects.create(model=rows.model, provider=provider, upstream_model="off-1", enabled=False)
    report = check_connection(aim(provider, listing.base_url("200")))
    assert report.level == "warning"
    assert report.detail.endswith(": gone-1")


def test_anthropic_gets_its_own_headers(provider: Provider, listing: ListingServer) -> None:
    provider.dialect = Dialect.ANTHROPIC
    check_connection(aim(provider, listing.base_url("200")))
    assert listing.seen[0]["x-api-key"] == CANARY
    assert listing.seen[0]["anthropic-version"] == "2023-06-01"
    assert "authorization" not in listing.seen[0]


@pytest.mark.parametrize(
    ("dialect", "options", "path", "header"),
    [
        (Dialect.AZURE, {}, "/200/v1/openai/v1/models", "api-key"),
        (Dialect.AZURE, {"api_version": "2024-10-21"}, "/200/v1/openai/models?api-version=2024-10-21", "api-key"),
        (Dialect.AZURE, {"auth": "entra"}, "/200/v1/openai/v1/models", "authorization"),
        (Dialect.GEMINI, {}, "/200/v1/v1beta/models?pageSize=1000", "x-goog-api-key"),
    ],
)
def test_other_dialects_are_asked_in_their_own_way(
    provider: Provider, listing: ListingServer, dialect: str, options: dict[str, str], path: str, header: str
) -> None:
    provider.dialect, provider.options = dialect, options
    report = check_connection(aim(provider, listing.base_url("200")))
    assert listing.seen[0]["path"] == path
    assert CANARY in listing.seen[0][header]
    assert [name for name, value in listing.seen[0].items() if CANARY in value] == [header]
    assert (report.level, "end with the host?" in report.detail) in {("success", False), ("warning", True)}


@pytest.mark.parametrize("ending", ["/openai", "/openai/v1"])
def test_an_azure_address_may_end_as_the_gateway_lets_it(
    provider: Provider, listing: ListingServer, ending: str
) -> None:
    provider.dialect = Dialect.AZURE
    check_connection(aim(provider, listing.base_url("200") + ending))
    assert listing.seen[0]["path"] == "/200/v1/openai/v1/models"


@pytest.mark.parametrize(
    ("dialect", "options"),
    [(Dialect.OPENAI, {}), (Dialect.ANTHROPIC, {}), (Dialect.AZURE, {}), (Dialect.GEMINI, {"api_version": "v1"})],
)
def test_the_page_names_the_address_that_is_asked(
    console: Client, provider: Provider, listing: ListingServer, dialect: str, options: dict[str, str]
) -> None:
    provider.dialect, provider.options = dialect, options
    check_connection(aim(provider, listing.base_url("200")))
    path = listing.seen[0]["path"].partition("?")[0]
    page = console.get("/console/catalog/provider/local/change/").content.decode()
    assert f"Asks http://127.0.0.1:{listing.server_port}{path} with" in page


def test_the_page_of_a_provider_without_a_test_has_no_button(console: Client, provider: Provider) -> None:
    provider.dialect, provider.options = Dialect.BEDROCK, {"region": "eu-central-1"}
    provider.save()
    page = console.get("/console/catalog/provider/local/change/").content.decode()
    assert "There is no connection test for this provider." in page
    assert "Test connection" not in page


@pytest.mark.parametrize("dialect", [Dialect.BEDROCK, "of-tomorrow"])
def test_a_dialect_without_a_list_is_not_asked(provider: Provider, listing: ListingServer, dialect: str) -> None:
    provider.dialect = dialect
    report = check_connection(aim(provider, listing.base_url("200")))
    assert (report.level, listing.seen) == ("warning", [])
    assert report.headline == "There is no connection test for this provider; nothing was sent."


def test_a_provider_without_a_key_gets_none(provider: Provider, listing: ListingServer) -> None:
    assert check_connection(aim(provider, listing.base_url("200"), api_key="")).level == "success"
    assert "authorization" not in listing.seen[0]


@pytest.mark.parametrize(
    ("behaviour", "level", "words"),
    [
        ("401", "error", "refuses the API key (401"),
        ("403", "error", "refuses the API key (403"),
        ("404", "warning", "no /models here (404"),
        ("429", "warning", "limits us right now (429"),
        ("500", "error", "answered 500"),
        ("302", "error", "redirects (302"),
        ("garbled", "warning", "not with a list of models"),
    ],
)
def test_bad_answers_are_told_apart_and_never_repeated(
    provider: Provider, listing: ListingServer, behaviour: str, level: str, words: str
) -> None:
    report = check_connection(aim(provider, listing.base_url(behaviour)))
    assert report.level == level
    assert words in report.headline
    assert CANARY not in f"{report.headline}{report.detail}"
    assert len(listing.seen) == 1


@pytest.mark.parametrize("behaviour", ["silent", "dripping"])
def test_a_provider_that_takes_too_long_is_given_up(
    provider: Provider, listing: ListingServer, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.3)
    report = check_connection(aim(provider, listing.base_url(behaviour)))
    assert report.level == "error"
    assert report.headline.startswith("No answer within")


def test_nobody_listening_is_said(provider: Provider) -> None:
    report = check_connection(aim(provider, "http://127.0.0.1:9/v1"))
    assert report.level == "error"
    assert report.headline == "No connection to 127.0.0.1:9."


def test_nothing_is_sent_without_the_key_that_is_named(provider: Provider, listing: ListingServer) -> None:
    provider.api_key_env = "A_VARIABLE_NOBODY_SETS"
    report = check_connection(aim(provider, listing.base_url("200"), api_key=""))
    assert (report.level, report.headline) == ("error", "A_VARIABLE_NOBODY_SETS is not set.")
    assert listing.seen == []


def test_a_key_that_no_header_can_carry_is_not_repeated(
    provider: Provider, listing: ListingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_KEY", f"{CANARY}\n")
    provider.api_key_env = "LOCAL_KEY"
    report = check_connection(aim(provider, listing.base_url("200"), api_key=""))
    assert report.level == "error"
    assert CANARY not in f"{report.headline}{report.detail}"
    assert listing.seen == []


def test_a_key_that_cannot_be_opened_is_said(provider: Provider, listing: ListingServer) -> None:
    aim(provider, "https://before.example/v1").base_url = listing.base_url("200")
    report = check_connection(provider)
    assert report.headline == "The stored API key cannot be opened."
    assert listing.seen == []


def test_the_button_answers_htmx_with_a_fragment(console: Client, provider: Provider, listing: ListingServer) -> None:
    aim(provider, listing.base_url("200"))
    answer = console.post("/console/catalog/provider/local/test/", headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert 'data-level="success"' in answer.content.decode()
    assert "<html" not in answer.content.decode()


def test_the_button_works_without_scripts(console: Client, provider: Provider, listing: ListingServer) -> None:
    aim(provider, listing.base_url("401"))
    answer = console.post("/console/catalog/provider/local/test/", follow=True)
    assert "refuses the API key (401" in answer.content.decode()
    assert CANARY not in answer.content.decode()


def test_following_a_link_tests_nothing(console: Client, provider: Provider, listing: ListingServer) -> None:
    aim(provider, listing.base_url("200"))
    assert console.get("/console/catalog/provider/local/test/").status_code == 405
    assert listing.seen == []


def test_an_unknown_provider_is_not_found(console: Client) -> None:
    assert console.post("/console/catalog/provider/nobody/test/").status_code == 404
