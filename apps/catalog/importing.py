"""Bringing a catalog document into the database: in one transaction, prices append-only."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from django.conf import settings
from django.db import models, transaction

from apps.catalog.base_urls import base_url_problem
from apps.catalog.credentials import is_bound_to, open_credential, store_credential
from apps.catalog.document import CatalogDocument, ModelEntry, ProviderEntry, RouteEntry
from apps.catalog.maintenance_document import MaintenanceEntry
from apps.catalog.models import CatalogVersion, Model, PriceVersion, Provider, Route
from apps.catalog.price_entries import AMOUNTS, PriceEntry, variants_as_json, variants_from_json
from apps.core.changes import announce_on_commit
from apps.core.errors import ConfigurationError, Conflict, InvalidInput

_PROVIDER_FIELDS = (
    "name",
    "dialect",
    "base_url",
    "api_key_env",
    "enabled",
    "sandbox",
    "output_limit_field",
    "options",
    "region",
    "collects_data",
    "zero_retention",
)
_ROUTE_FIELDS = ("weight", "enabled", "quantization", "canary_percent", "shadow_percent")


@dataclass
class Tally:
    """How many rows of one kind were what."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0

    @property
    def is_change(self) -> bool:
        return bool(self.created or self.updated or self.removed)


@dataclass
class ImportReport:
    """What an import did; `notes` are sentences for the operator."""

    providers: Tally = field(default_factory=Tally)
    models: Tally = field(default_factory=Tally)
    routes: Tally = field(default_factory=Tally)
    prices: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)

    @property
    def is_change(self) -> bool:
        return any(tally.is_change for tally in (self.providers, self.models, self.routes, self.prices))


def import_catalog(document: CatalogDocument, *, actor: str = "") -> ImportReport:
    """Make the database say what the document says of its providers and models; others are left alone.

    A listed model gets exactly the document's routes. Prices are only added: one that is stored already with
    other numbers raises Conflict. A stored credential stays, unless the provider moves to another host or the
    document brings a key. A route to a provider that is neither in the document nor stored raises
    InvalidInput. Nothing is changed when this raises. `actor` is kept with new prices."""
    report = ImportReport()
    with transaction.atomic():
        # One import at a time: every write of the catalog moves this row, so whoever holds it writes alone.
        CatalogVersion.objects.select_for_update().get_or_create(id=1)
        _import_providers(document.providers, report)
        _refuse_unknown_providers(document.models)
        _import_models(document.models, report.models)
        _import_routes(document.models, report.routes)
        _import_prices(document.models, report.prices, actor=actor)
        if report.is_change:
            announce_on_commit("catalog")
    return report


def _import_providers(entries: Iterable[ProviderEntry], report: ImportReport) -> None:
    for entry in entries:
        if problem := base_url_problem(entry.base_url, settings.PRIVATE_UPSTREAMS):
            raise InvalidInput(f"provider {entry.id}: base_url {problem}")
    stored = Provider.objects.in_bulk([entry.id for entry in entries])
    for entry in entries:
        provider = stored.get(entry.id)
        values = {name: getattr(entry, name) for name in _PROVIDER_FIELDS} | _maintenance(entry.maintenance)
        if provider is None:
            provider = Provider(id=entry.id, **values)
            store_credential(provider, entry.api_key)
            provider.save(force_insert=True)
            report.providers.created += 1
        elif _update_provider(provider, entry, values=values, notes=report.notes):
            provider.save()
            report.providers.updated += 1
        else:
            report.providers.unchanged += 1


def _update_provider(provider: Provider, entry: ProviderEntry, *, values: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether the provider is another one now. A credential is never taken along to another host."""
    stays = is_bound_to(provider, entry.base_url)
    holds_key = stays and bool(entry.api_key) and _holds(provider, entry.api_key)
    is_changed = _assign(provider, values)
    if provider.credential and not stays:
        store_credential(provider, "")
        if not entry.api_key:
            notes.append(f"provider {provider.id} moved to another host: its stored API key was dropped")
    if entry.api_key and not holds_key:
        store_credential(provider, entry.api_key)
        is_changed = True
    return is_changed


def _holds(provider: Provider, api_key: str) -> bool:
    try:
        return bool(provider.credential) and open_credential(provider) == api_key
    except ConfigurationError:
        return False


def _refuse_unknown_providers(entries: Iterable[ModelEntry]) -> None:
    named = {route.provider for entry in entries for route in entry.routes}
    unknown = named - set(Provider.objects.filter(id__in=named).values_list("id", flat=True))
    if unknown:
        raise InvalidInput(f"no such provider: {', '.join(sorted(unknown))}")


def _import_models(entries: Iterable[ModelEntry], tally: Tally) -> None:
    stored = Model.objects.in_bulk([entry.id for entry in entries])
    created = []
    for entry in entries:
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(entry).items()
            if name not in ("id", "cache", "routes", "prices")
        }
        values |= {f"cache_{name}": value for name, value in msgspec.structs.asdict(entry.cache).items()}
        model = stored.get(entry.id)
        if model is None:
            created.append(Model(id=entry.id, **values))
        else:
            _update(model, values, tally=tally)
    Model.objects.bulk_create(created)
    tally.created += len(created)


def _import_routes(entries: Iterable[ModelEntry], tally: Tally) -> None:
    stored: dict[str, dict[tuple[str, str], Route]] = {entry.id: {} for entry in entries}
    for route in Route.objects.filter(model__in=list(stored)):
        stored[route.model_id][route.provider_id, route.upstream_model] = route
    created = []
    for entry in entries:
        left = stored[entry.id]
        for wanted in entry.routes:
            known = left.pop((wanted.provider, wanted.upstream_model), None)
            if known is None:
                created.append(_new_route(entry.id, wanted))
            else:
                values = _values(wanted)
                _update(known, values, tally=tally)
    stale = [route.pk for left in stored.values() for route in left.values()]
    if stale:
        Route.objects.filter(pk__in=stale).delete()
    Route.objects.bulk_create(created)
    tally.created += len(created)
    tally.removed += len(stale)


def _values(entry: RouteEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _ROUTE_FIELDS} | _maintenance(entry.maintenance)


def _new_route(model_id: str, entry: RouteEntry) -> Route:
    return Route(
        model_id=model_id,
        provider_id=entry.provider,
        upstream_model=entry.upstream_model,
        **_values(entry),
    )


def _maintenance(entry: MaintenanceEntry | None) -> dict[str, Any]:
    """The columns of a window; without one they are empty."""
    if entry is None:
        return {"maintenance_from": None, "maintenance_until": None, "maintenance_note": ""}
    return {
        "maintenance_from": entry.starts_at,
        "maintenance_until": entry.ends_at,
        "maintenance_note": entry.note,
    }


def _import_prices(entries: Iterable[ModelEntry], tally: Tally, *, actor: str) -> None:
    stored: dict[tuple[str, datetime], PriceVersion] = {
        (version.model_id, version.starts_at): version
        for version in PriceVersion.objects.filter(model__in=[entry.id for entry in entries])
    }
    created, conflicts = [], []
    for entry in entries:
        for price in entry.prices:
            version = stored.get((entry.id, price.starts_at))
            if version is None:
                created.append(_new_price(entry.id, price, actor=actor))
            elif _stated(version) != _stated(price):
                conflicts.append(_conflict(version, price))
            else:
                tally.unchanged += 1
    if conflicts:
        raise Conflict("\n".join(conflicts))
    PriceVersion.objects.bulk_create(created)
    tally.created += len(created)


def _new_price(model_id: str, entry: PriceEntry, *, actor: str) -> PriceVersion:
    return PriceVersion(
        model_id=model_id,
        starts_at=entry.starts_at,
        **{name: getattr(entry, name) for name in AMOUNTS},
        variants=variants_as_json(entry.variants),
        note=entry.note,
        created_by=actor,
    )


def _stated(price: PriceVersion | PriceEntry) -> list[tuple[str, dict[str, Decimal]]]:
    """Everything that a price says, to compare and to show: (conditions, amounts), the version's own first."""
    amounts = {name: amount for name in AMOUNTS if (amount := getattr(price, name)) is not None}
    variants = price.variants if isinstance(price, PriceEntry) else variants_from_json(price.variants)
    return [("", amounts), *((variant.conditions(), variant.given()) for variant in variants)]


def _conflict(version: PriceVersion, price: PriceEntry) -> str:
    start = version.starts_at.isoformat().replace("+00:00", "Z")
    return (
        f"{version.model_id}: the price from {start} is stored as {_sentence(_stated(version))}, the document says "
        f"{_sentence(_stated(price))}. A price version is never edited: add one with another start"
    )


def _sentence(stated: Iterable[tuple[str, Mapping[str, Decimal]]]) -> str:
    parts = []
    for conditions, amounts in stated:
        listed = ", ".join(f"{name} {amount.normalize():f}" for name, amount in amounts.items())
        parts.append(f"{conditions}: {listed}" if conditions else listed)
    return "; ".join(parts)


def _assign(row: models.Model, values: Mapping[str, Any]) -> bool:
    """Set the fields that differ; whether any did."""
    differing = {name: value for name, value in values.items() if getattr(row, name) != value}
    for name, value in differing.items():
        setattr(row, name, value)
    return bool(differing)


def _update(row: Model | Route, values: Mapping[str, Any], *, tally: Tally) -> None:
    if _assign(row, values):
        row.save()
        tally.updated += 1
    else:
        tally.unchanged += 1
