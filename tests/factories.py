"""Small makers of valid things for tests."""

from typing import Any

from apps.accounts.models import Project
from apps.accounts.organizations import create_organization, default_project
from apps.catalog.contracts import CatalogSnapshot, OfferedModel, Price, Target
from apps.catalog.models import Model, PriceVersion
from apps.catalog.snapshot import price_from_version
from apps.core.ids import new_id
from apps.keys.contracts import KeyGrant
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts

PRICE = Price(
    version_id=1, starts_at=0.0, input=150_000_000, output=600_000_000, cache_read=75_000_000,
    cache_write=150_000_000, reasoning=600_000_000,
)  # fmt: skip
TARGET = Target(
    provider="local",
    dialect="openai",
    base_url="http://127.0.0.1:9/v1",
    upstream_model="gpt-x",
    weight=1,
    api_key="sk-up",
)

GRANT = KeyGrant(
    key_id="key_1", organization_id="org_1", organization_slug="demo", project_id="proj_1", project_slug="default",
    name="Test", digest="", created_at=0.0, expires_at=None, revoked_at=None,
)  # fmt: skip


def offered(**changes: Any) -> OfferedModel:
    """A model on offer."""
    values: dict[str, Any] = {
        "id": "bench-model",
        "name": "Bench model",
        "vendor": "Local",
        "description": "",
        "created": 1,
        "context_length": 128_000,
        "max_output_tokens": 100,
        "input_modalities": ("text",),
        "output_modalities": ("text",),
        "tokenizer": "",
        "targets": (TARGET,),
        "prices": (PRICE,),
    }
    return OfferedModel(**(values | changes))


def snapshot(*models: OfferedModel) -> CatalogSnapshot:
    """A catalog with these models."""
    return CatalogSnapshot(version=1, models={model.id: model for model in models or (offered(),)})


def opened(**changes: Any) -> RequestOpened:
    """A request that was just opened."""
    values: dict[str, Any] = {
        "request_id": new_id("req"),
        "organization_id": "org_test",
        "project_id": "proj_test",
        "key_id": "key_test",
        "model": "bench-model",
        "provider": "local",
        "upstream_model": "gpt-x",
        "streamed": True,
        "price": PRICE,
        "input_estimate": 10,
    }
    return RequestOpened(**(values | changes))


def closed(entry: RequestOpened | None = None, **changes: Any) -> RequestClosed:
    """A request that ended well."""
    values: dict[str, Any] = {
        "opened": entry or opened(),
        "outcome": Outcome.COMPLETED,
        "http_status": 200,
        "tokens": TokenCounts(input=7, output=3),
        "cost_nanos": 2_850,
        "estimated": False,
        "duration_ms": 12,
    }
    return RequestClosed(**(values | changes))


def project(name: str = "Acme") -> Project:
    """The default project of a new organization."""
    return default_project(create_organization(name))


def stored_price(model_id: str = "bench-model", **changes: Any) -> Price:
    """A price version in the database, as the gateway sees it."""
    row, _ = Model.objects.get_or_create(
        id=model_id,
        defaults={"name": model_id, "vendor": "Local", "context_length": 128_000, "max_output_tokens": 100},
    )
    values: dict[str, Any] = {"input": "0.15", "output": "0.60", "cache_read": "0.075"}
    version = PriceVersion.objects.create(model=row, **(values | changes))
    version.refresh_from_db()
    return price_from_version(version)
