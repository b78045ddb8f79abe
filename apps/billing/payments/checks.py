"""System checks of the payment settings, each with an id and a hint. Values of secrets are never shown."""

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

_KEY = re.compile(r"(sk|rk)_(live|test)_\w+")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@register
def webhook_secrets_are_set(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """billing.E001: with an empty secret anybody could sign an event, and so make credit."""
    if not settings.STRIPE_SECRET_KEY:
        return []
    secrets = [secret.strip() for secret in settings.STRIPE_WEBHOOK_SECRETS]
    if secrets and all(len(secret) >= 16 for secret in secrets):
        return []
    hint = "Copy the signing secret (whsec_...) of the webhook endpoint at Stripe; several are separated by commas."
    return [Error("CRUN_STRIPE_WEBHOOK_SECRETS has an empty or short secret.", hint=hint, id="billing.E001")]


@register
def secret_key_is_one(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """billing.E002: the key says whether payments are real, and events of the other mode are refused."""
    if not settings.STRIPE_SECRET_KEY or _KEY.fullmatch(settings.STRIPE_SECRET_KEY):
        return []
    hint = "A secret key begins with sk_live_, sk_test_, rk_live_ or rk_test_; a publishable key (pk_) does not do."
    return [Error("CRUN_STRIPE_SECRET_KEY is no secret key of Stripe.", hint=hint, id="billing.E002")]


@register
def stripe_is_reached_safely(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """billing.E003: the key goes over this connection."""
    address = urlsplit(settings.STRIPE_API_URL)
    if address.scheme == "https" or (address.scheme == "http" and address.hostname in _LOOPBACK):
        return []
    return [Error("CRUN_STRIPE_API_URL must be https, or http to this machine for tests.", id="billing.E003")]


@register
def amounts_make_sense(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    """billing.E004: limits that contradict each other would refuse every payment."""
    errors: list[CheckMessage] = []
    if not 1 <= settings.TOP_UP_MIN_USD <= settings.TOP_UP_MAX_USD <= 999_999:
        text = "CRUN_TOP_UP_MIN_USD is at least 1 and at most CRUN_TOP_UP_MAX_USD, which is at most 999999."
        errors.append(Error(text, id="billing.E004"))
    if settings.AUTO_TOP_UP_MAX_FAILURES < 1:
        errors.append(Error("CRUN_AUTO_TOP_UP_MAX_FAILURES is at least 1.", id="billing.E004"))
    return errors
