"""What a new installation starts with: the catalog, an operator, the `demo` organization with credit and a key."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import transaction

import apps.catalog
from apps.accounts.models import Organization, User
from apps.accounts.organizations import create_organization, default_project
from apps.billing.grants import Credit, grant_credit
from apps.billing.models import GrantSource
from apps.catalog.credentials import store_credential
from apps.catalog.document import parse_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Provider
from apps.core.changes import announce_on_commit
from apps.core.money import NANOS_PER_USD
from apps.keys.issuing import create_key
from apps.usage.partitions import ensure_upcoming_partitions

SEED_DIR = Path(apps.catalog.__file__).parent / "seed"
SEED_FILES = ("models.yaml", "sandbox.yaml")
SANDBOX = "sandbox"
ACTOR = "first start"
VENDOR_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
DEFAULT_OPERATOR = "operator@example.com"
WELCOME_CREDIT = Credit(25 * NANOS_PER_USD, GrantSource.PROMOTIONAL)


@transaction.atomic
def seed(*, sandbox_url: str | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Fill an empty installation; an existing one only learns where its sandbox upstream is now.

    Returns what the person at the terminal needs: `first_start`, and then the operator's login and a key."""
    ensure_upcoming_partitions()
    is_first = not Organization.objects.exists()
    made = _first_start(environment) if is_first else {}
    if sandbox_url:
        _move_sandbox(sandbox_url)
    operator = User.objects.filter(is_superuser=True).order_by("id").values_list("email", flat=True).first()
    return {"first_start": is_first, "operator_email": operator, "operator_password": None, "api_key": None, **made}


def _first_start(environment: Mapping[str, str]) -> dict[str, str]:
    for name in SEED_FILES:
        text = (SEED_DIR / name).read_text(encoding="utf-8")
        import_catalog(parse_catalog(text, source=name), actor=ACTOR)
    _store_vendor_keys(environment)
    email = environment.get("CRUN_OPERATOR_EMAIL") or DEFAULT_OPERATOR
    password = environment.get("CRUN_OPERATOR_PASSWORD") or secrets.token_urlsafe(12)
    operator = User.objects.create_superuser(email, password)
    demo = create_organization("Demo", slug="demo", owner=operator)
    grant_credit(demo.id, WELCOME_CREDIT, idempotency_key=f"welcome:{demo.id}", reason="Welcome credit", actor=ACTOR)
    issued = create_key(default_project(demo), name="First key", created_by=operator)
    return {"operator_email": operator.email, "operator_password": password, "api_key": issued.secret}


def _store_vendor_keys(environment: Mapping[str, str]) -> None:
    """A vendor's key that is in the environment now is kept, so that its models stay without it."""
    for provider_id, variable in VENDOR_KEYS.items():
        if api_key := environment.get(variable, "").strip():
            provider = Provider.objects.get(pk=provider_id)
            store_credential(provider, api_key)
            provider.save(update_fields=["credential"])


def _move_sandbox(url: str) -> None:
    if Provider.objects.filter(pk=SANDBOX).exclude(base_url=url).update(base_url=url, credential=""):
        announce_on_commit("catalog")
