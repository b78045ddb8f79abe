"""Who may open what: every route of the URLconf against owner, developer, finance, viewer, stranger and nobody."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoDbBlocker

from apps.accounts.models import Organization, User
from apps.accounts.roles import CAPABILITIES, Capability, Role
from apps.billing.invoices import printing
from apps.portal.access import OrganizationPage
from apps.portal.urls import urlpatterns
from tests.portal import paper
from tests.portal.conftest import Cast, made_cast, made_price, made_request

OUTSIDE_ORGANIZATIONS = {"start", "create_organization"}
REQUIRED = {
    "overview": {"GET": Capability.VIEW_USAGE},
    "keys": {"GET": Capability.VIEW_USAGE, "POST": Capability.MANAGE_KEYS},
    "revoke_key": {"GET": Capability.MANAGE_KEYS, "POST": Capability.MANAGE_KEYS},
    "resume_key": {"POST": Capability.MANAGE_KEYS},
    "key_brake": {"GET": Capability.MANAGE_KEYS, "POST": Capability.MANAGE_KEYS},
    "alerts": {"GET": Capability.VIEW_USAGE},
    "alert_settings": {"POST": Capability.MANAGE_BILLING},
    "acknowledge_alert": {"POST": Capability.MANAGE_BILLING},
    "acknowledge_all_alerts": {"POST": Capability.MANAGE_BILLING},
    "webhooks": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "webhook": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "rotate_webhook": {"POST": Capability.MANAGE_ORGANIZATION},
    "switch_webhook": {"POST": Capability.MANAGE_ORGANIZATION},
    "test_webhook": {"POST": Capability.MANAGE_ORGANIZATION},
    "delete_webhook": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "replay_webhook": {"POST": Capability.MANAGE_ORGANIZATION},
    "provider_keys": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "provider_key": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "rotate_provider_key": {"POST": Capability.MANAGE_ORGANIZATION},
    "switch_provider_key": {"POST": Capability.MANAGE_ORGANIZATION},
    "delete_provider_key": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "guardrails": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "new_guardrail": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "guardrail": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "switch_guardrail": {"POST": Capability.MANAGE_ORGANIZATION},
    "delete_guardrail": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "models": {"GET": Capability.VIEW_USAGE},
    "usage": {"GET": Capability.VIEW_USAGE},
    "export_usage": {"GET": Capability.VIEW_USAGE},
    "usage_request": {"GET": Capability.VIEW_USAGE},
    "billing": {"GET": Capability.MANAGE_BILLING},
    "add_credit": {"POST": Capability.MANAGE_BILLING},
    "payment": {"GET": Capability.MANAGE_BILLING},
    "auto_top_up": {"POST": Capability.MANAGE_BILLING},
    "remove_saved_card": {"GET": Capability.MANAGE_BILLING, "POST": Capability.MANAGE_BILLING},
    "invoices": {"GET": Capability.MANAGE_BILLING},
    "billing_profile": {"GET": Capability.MANAGE_BILLING, "POST": Capability.MANAGE_BILLING},
    "invoice": {"GET": Capability.MANAGE_BILLING},
    "invoice_pdf": {"GET": Capability.MANAGE_BILLING},
    "credit_note": {"GET": Capability.MANAGE_BILLING},
    "credit_note_pdf": {"GET": Capability.MANAGE_BILLING},
    "statement": {"GET": Capability.MANAGE_BILLING},
    "statement_pdf": {"GET": Capability.MANAGE_BILLING},
    "statement_csv": {"GET": Capability.MANAGE_BILLING},
    "settings": {"GET": Capability.VIEW_USAGE, "POST": Capability.MANAGE_ORGANIZATION},
    "data_policy": {"POST": Capability.MANAGE_ORGANIZATION},
    "erase_responses": {"GET": Capability.MANAGE_ORGANIZATION, "POST": Capability.MANAGE_ORGANIZATION},
    "create_project": {"POST": Capability.MANAGE_ORGANIZATION},
}
EVERY_METHOD = [(name, method) for name, methods in REQUIRED.items() for method in methods]


@pytest.fixture(autouse=True)
def quick_pdf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may have a PDF is asked here, not how it looks."""
    monkeypatch.setattr(printing, "PROCESS", paper.stand_in(tmp_path, paper.QUICK_PDF))


@dataclass(frozen=True)
class World:
    """The cast, with a request and documents of its organization."""

    cast: Cast
    request_id: str
    document_ids: dict[str, str]


@pytest.fixture(scope="module")
def world(module_db: DjangoDbBlocker) -> World:
    """Made once: it takes longer than asking for a page, and no page changes it for the next test."""
    with module_db.unblock():
        cast = made_cast()
        return World(cast, made_request(cast, made_price()), paper.document_ids(cast.organization))


@pytest.fixture
def cast(world: World, db: None) -> Cast:
    return deepcopy(world.cast)


def url_of(name: str, world: World, organization: Organization | None = None) -> str:
    cast = world.cast
    known = {
        "slug": (organization or cast.organization).slug,
        "key_id": cast.key.id,
        "request_id": world.request_id,
        "alert_id": cast.alert.id,
        "credential_id": cast.credential.pk,
        "endpoint_id": cast.endpoint.id,
        "guardrail_id": cast.guardrail.id,
        "kind": "keywords",
        "message_id": cast.message.id,
        "payment_id": cast.payment.id,
        "card_id": cast.card.id,
        **world.document_ids,
    }
    pattern = next(pattern for pattern in urlpatterns if pattern.name == name)
    return reverse(f"portal:{name}", kwargs={word: known[word] for word in pattern.pattern.converters})


def test_every_route_stands_in_the_table() -> None:
    stated = {
        pattern.name: pattern.callback.requires
        for pattern in urlpatterns
        if isinstance(pattern.callback, OrganizationPage)
    }
    assert stated == REQUIRED
    assert {pattern.name for pattern in urlpatterns} == set(REQUIRED) | OUTSIDE_ORGANIZATIONS


def test_every_route_below_an_organization_resolves_access() -> None:
    for pattern in urlpatterns:
        takes_slug = "slug" in pattern.pattern.converters
        assert takes_slug == isinstance(pattern.callback, OrganizationPage), pattern.name


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_a_member_may_what_the_role_allows(
    name: str, method: str, role: Role, world: World, client_of: Callable[[str], Client]
) -> None:
    response = client_of(role).generic(method, url_of(name, world))
    allowed = REQUIRED[name][method] in CAPABILITIES[role]
    assert response.status_code in ((200, 302, 422) if allowed else (403,))


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_a_stranger_finds_nothing(name: str, method: str, world: World, client_of: Callable[[str], Client]) -> None:
    assert client_of("stranger").generic(method, url_of(name, world)).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "revoke_key",
        "provider_key",
        "delete_provider_key",
        "usage_request",
        "invoice",
        "invoice_pdf",
        "credit_note",
        "credit_note_pdf",
    ],
)
def test_a_strangers_own_organization_does_not_open_our_objects(
    name: str, cast: Cast, world: World, client_of: Callable[[str], Client]
) -> None:
    url = url_of(name, world, cast.stranger_organization)
    client = client_of("stranger")
    assert client.get(url).status_code == 404
    assert client.post(url).status_code in (404, 405)
    cast.key.refresh_from_db()
    assert cast.key.revoked_at is None


@pytest.mark.parametrize(("name", "method"), EVERY_METHOD)
def test_nobody_is_sent_to_the_login(name: str, method: str, world: World, client_of: Callable[[str], Client]) -> None:
    response = client_of("anonymous").generic(method, url_of(name, world))
    assert response.status_code == 302
    assert response["Location"].startswith(f"{reverse('account_login')}?next=/o/acme/")


def test_an_unknown_organization_is_the_same_404_for_everybody(client_of: Callable[[str], Client]) -> None:
    assert client_of("owner").get("/o/nobody-knows/").status_code == 404
    assert client_of("anonymous").get("/o/nobody-knows/").status_code == 302


def test_staff_are_strangers_too(cast: Cast) -> None:
    operator = User.objects.create_superuser("operator@example.com")
    client = Client()
    client.force_login(operator, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(f"/o/{cast.organization.slug}/").status_code == 404


@pytest.mark.parametrize(("name", "method"), [pair for pair in EVERY_METHOD if pair[1] == "POST"])
def test_a_post_without_its_token_is_refused(name: str, method: str, cast: Cast, world: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.people["owner"], backend="django.contrib.auth.backends.ModelBackend")
    response = client.generic(method, url_of(name, world))
    assert response.status_code == 403
    assert "This form has expired" in response.content.decode()
    cast.key.refresh_from_db()
    assert cast.key.revoked_at is None


@pytest.mark.parametrize("name", list(REQUIRED))
def test_other_methods_are_refused(name: str, world: World, owner: Client) -> None:
    response = owner.delete(url_of(name, world))
    assert response.status_code == 405
    assert set(response["Allow"].split(", ")) == set(REQUIRED[name])


def test_a_script_whose_session_ended_moves_the_whole_window(cast: Cast) -> None:
    response = Client().get("/o/acme/models/?q=x", headers={"HX-Request": "true"})
    assert response.status_code == 204
    assert response["HX-Redirect"] == f"{reverse('account_login')}?next=/o/acme/models/%3Fq%3Dx"
