"""The catalog in the database as a document. Credentials stay where they are."""

from django.db import transaction
from django.db.models import Prefetch

from apps.catalog.document import CatalogDocument, ModelEntry, ProviderEntry, RouteEntry
from apps.catalog.maintenance_document import MaintenanceEntry
from apps.catalog.models import Maintained, Model, PriceVersion, Provider, Route
from apps.catalog.price_entries import AMOUNTS, PriceEntry, variants_from_json


def export_catalog() -> CatalogDocument:
    """Everything in the catalog, in a stable order: importing it again changes nothing.

    Of credentials it has the names of environment variables only."""
    with transaction.atomic():
        providers = tuple(_provider(row) for row in Provider.objects.order_by("id"))
        rows = Model.objects.order_by("vendor", "id").prefetch_related(
            Prefetch("routes", Route.objects.order_by("id")),
            Prefetch("prices", PriceVersion.objects.order_by("starts_at")),
        )
        models = tuple(_model(row) for row in rows)
    return CatalogDocument(providers=providers, models=models)


def _provider(row: Provider) -> ProviderEntry:
    return ProviderEntry(
        id=row.id,
        name=row.name,
        dialect=row.dialect,
        base_url=row.base_url,
        api_key_env=row.api_key_env,
        enabled=row.enabled,
        sandbox=row.sandbox,
        output_limit_field=row.output_limit_field,
        options=dict(row.options),
        maintenance=_maintenance(row),
        region=row.region,
        collects_data=row.collects_data,
        zero_retention=row.zero_retention,
    )


def _model(row: Model) -> ModelEntry:
    return ModelEntry(
        id=row.id,
        name=row.name,
        vendor=row.vendor,
        description=row.description,
        context_length=row.context_length,
        max_output_tokens=row.max_output_tokens,
        input_modalities=tuple(row.input_modalities),
        output_modalities=tuple(row.output_modalities),
        tokenizer=row.tokenizer,
        image_tokens=row.image_tokens,
        unsupported_parameters=row.unsupported_parameters,
        first_byte_timeout_s=row.first_byte_timeout_s,
        enabled=row.enabled,
        cache=row.cache,
        routes=tuple(_route(route) for route in row.routes.all()),
        prices=tuple(_price(price) for price in row.prices.all()),
    )


def _route(row: Route) -> RouteEntry:
    return RouteEntry(
        provider=row.provider_id,
        upstream_model=row.upstream_model,
        quantization=row.quantization,
        canary_percent=row.canary_percent,
        shadow_percent=row.shadow_percent,
        weight=row.weight,
        enabled=row.enabled,
        maintenance=_maintenance(row),
    )


def _maintenance(row: Maintained) -> MaintenanceEntry | None:
    if row.maintenance_from is None or row.maintenance_until is None:
        return None
    return MaintenanceEntry(starts_at=row.maintenance_from, ends_at=row.maintenance_until, note=row.maintenance_note)


def _price(row: PriceVersion) -> PriceEntry:
    amounts = {name: getattr(row, name) for name in AMOUNTS}
    return PriceEntry(starts_at=row.starts_at, **amounts, note=row.note, variants=variants_from_json(row.variants))
