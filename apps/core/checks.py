"""System checks for contradictory or missing settings, each with an id and a hint."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register


@register
def secrets_are_set(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """core.E001: without peppers no key can be checked, without encryption keys no credential opened."""
    needed = {
        "CRUN_KEY_PEPPERS": settings.KEY_PEPPERS,
        "CRUN_ENCRYPTION_KEYS": settings.ENCRYPTION_KEYS,
    }
    hint = "Run `crun up` once: it makes them in $CRUN_HOME/secrets.env. Or set the variable."
    return [Error(f"{name} is not set.", hint=hint, id="core.E001") for name, value in needed.items() if not value]


@register
def journal_fsync_is_known(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """core.E002: a misspelt durability setting must not silently mean the weaker one."""
    if settings.JOURNAL_FSYNC in ("never", "always"):
        return []
    return [Error("CRUN_JOURNAL_FSYNC must be `never` or `always`.", id="core.E002")]


@register
def timeouts_are_positive(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """core.E003: a timeout of zero or less would refuse everything or wait for ever."""
    names = [name for name in dir(settings) if name.endswith("_TIMEOUT_S")]
    return [Error(f"{name} must be above 0.", id="core.E003") for name in names if getattr(settings, name) <= 0]


@register
def idempotency_is_bounded(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """core.E004: keys that are forgotten while a client still retries protect from nothing."""
    found = []
    if settings.IDEMPOTENCY_TTL_S < 60:
        found.append(Error("CRUN_IDEMPOTENCY_TTL_S must be at least 60.", id="core.E004"))
    for name in ("IDEMPOTENCY_MAX_BYTES", "ANSWERS_ORGANIZATION_BYTES", "ANSWERS_BYTES", "IDEMPOTENCY_WAIT_S"):
        if getattr(settings, name) < 0:
            found.append(Error(f"CRUN_{name} must not be below 0.", id="core.E004"))
    return list(found)


@register
def cache_terms_make_sense(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """core.E005: an answer is kept for a second to a day, and costs no more than its price."""
    found = []
    if not 1 <= settings.CACHE_TTL_S <= 86_400:
        found.append(Error("CRUN_CACHE_TTL_S must be from 1 to 86400.", id="core.E005"))
    if not 0 <= settings.CACHE_PRICE_PPM <= 1_000_000:
        found.append(Error("CRUN_CACHE_PRICE_PPM must be from 0 to 1000000.", id="core.E005"))
    if settings.CACHE_MAX_BYTES < 0:
        found.append(Error("CRUN_CACHE_MAX_BYTES must not be below 0.", id="core.E005"))
    return list(found)
