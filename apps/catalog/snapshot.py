"""Loading the frozen snapshot that gateways serve from. Synchronous; the gateway calls it through its one bridge."""

import logging
import time

from django.conf import settings
from django.db import transaction
from django.db.models import Prefetch

from apps.catalog.contracts import CatalogSnapshot, Maintenance, OfferedModel, Price, Target
from apps.catalog.credentials import open_credential
from apps.catalog.dialects import with_defaults
from apps.catalog.models import CatalogVersion, Maintained, Model, PriceVersion, Provider, Route
from apps.catalog.price_entries import AMOUNTS, frozen_rates, frozen_variant, variants_from_json
from apps.core.errors import ConfigurationError
from apps.core.limits import Limits

log = logging.getLogger(__name__)


def read_version() -> int:
    """The catalog's current version number, 0 for a catalog that nobody ever wrote to: one indexed read."""
    return CatalogVersion.objects.values_list("number", flat=True).first() or 0


def load_snapshot() -> CatalogSnapshot:
    """All enabled models with a route to a provider that is enabled and ready, in one consistent read.

    A provider is ready when its credential can be had, or when it names none at all (a local engine)."""
    with transaction.atomic():
        version = read_version()
        keys = _api_keys()
        routes = Route.objects.filter(enabled=True, provider__enabled=True).select_related("provider").order_by("id")
        rows = Model.objects.filter(enabled=True).prefetch_related(
            Prefetch("routes", routes), Prefetch("prices", PriceVersion.objects.order_by("-starts_at"))
        )
        offered = [offer for offer in (_offer(row, keys) for row in rows) if offer.targets]
        moderation = _moderation(keys)
    return CatalogSnapshot(
        version=version,
        models={offer.id: offer for offer in offered},
        cached_by_default=frozenset(offer.id for offer in offered if offer.cache.default),
        moderation=moderation,
    )


def _moderation(keys: dict[str, str]) -> Target | None:
    """Where guardrails have texts moderated, by `CRUN_MODERATION`; None without, loudly where it leads nowhere."""
    provider_id, _, model = settings.MODERATION.partition("/")
    if not provider_id:
        return None
    provider = Provider.objects.filter(pk=provider_id, enabled=True, dialect="openai").first()
    if provider is None or provider_id not in keys or not model:
        log.error("CRUN_MODERATION names no provider of OpenAI's dialect that is ready, and its model")
        return None
    return Target(
        provider=provider.id,
        dialect=provider.dialect,
        base_url=provider.base_url.rstrip("/"),
        upstream_model=model,
        weight=1,
        api_key=keys[provider_id],
        is_sandbox=provider.sandbox,
    )


def price_from_version(row: PriceVersion) -> Price:
    """A stored version as integers; an absent bucket costs what the bucket that contains it costs."""
    amounts = {name: amount for name in AMOUNTS if (amount := getattr(row, name)) is not None}
    return Price(
        version_id=row.pk,
        starts_at=row.starts_at.timestamp(),
        **frozen_rates(amounts),
        variants=tuple(frozen_variant(amounts, variant) for variant in variants_from_json(row.variants)),
    )


def _offer(row: Model, keys: dict[str, str]) -> OfferedModel:
    routes = [_target(route, keys) for route in row.routes.all() if route.provider_id in keys]
    targets = tuple(target for target in routes if not target.shadow_percent)
    return OfferedModel(
        id=row.id,
        name=row.name,
        vendor=row.vendor,
        description=row.description,
        created=int(row.created_at.timestamp()),
        context_length=row.context_length,
        max_output_tokens=row.max_output_tokens,
        input_modalities=tuple(row.input_modalities),
        output_modalities=tuple(row.output_modalities),
        tokenizer=row.tokenizer,
        image_tokens=row.image_tokens,
        refuses_unsupported=row.unsupported_parameters == "refuse",
        targets=targets,
        shadows=tuple(target for target in routes if target.shadow_percent),
        prices=tuple(price_from_version(price) for price in row.prices.all()),
        limits=Limits(requests_per_minute=row.requests_per_minute, tokens_per_minute=row.tokens_per_minute),
        first_byte_timeout_s=row.first_byte_timeout_s,
        has_maintenance=any(target.maintenance for target in targets),
        cache=row.cache,
    )


def _target(route: Route, keys: dict[str, str]) -> Target:
    provider = route.provider
    return Target(
        provider=provider.id,
        dialect=provider.dialect,
        base_url=provider.base_url.rstrip("/"),
        upstream_model=route.upstream_model,
        weight=route.weight,
        api_key=keys[provider.id],
        is_sandbox=provider.sandbox,
        output_limit_field=provider.output_limit_field,
        options=with_defaults(provider.dialect, provider.options),
        maintenance=_maintenance(provider, route),
        region=provider.region,
        collects_data=provider.collects_data,
        zero_retention=provider.zero_retention,
        quantization=route.quantization,
        canary_percent=route.canary_percent,
        shadow_percent=route.shadow_percent,
    )


def _maintenance(*rows: Maintained) -> tuple[Maintenance, ...]:
    """What is not over yet of the windows of these."""
    now = time.time()
    windows = (
        Maintenance(row.maintenance_from.timestamp(), row.maintenance_until.timestamp(), row.maintenance_note)
        for row in rows
        if row.maintenance_from and row.maintenance_until and row.maintenance_until.timestamp() > now
    )
    return tuple(sorted(windows, key=lambda window: window.starts_at))


def _api_keys() -> dict[str, str]:
    """The API keys of all ready providers, "" for one that needs none.

    One provider with an unreadable credential must not take the others down: it is left out, loudly."""
    keys: dict[str, str] = {}
    for provider in Provider.objects.filter(enabled=True):
        try:
            api_key = open_credential(provider)
        except ConfigurationError as error:
            log.error("provider left out: %s", error.message, extra={"provider": provider.id})
            continue
        if api_key or not provider.api_key_env:
            keys[provider.id] = api_key
    return keys
