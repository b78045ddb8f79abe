"""Sealing and opening providers' API keys. A key is bound to its provider and host, so it cannot be sent elsewhere."""

import os
from urllib.parse import urlsplit

from django.conf import settings

from apps.catalog.models import Provider
from apps.core.crypto import seal, unseal


def store_credential(provider: Provider, api_key: str) -> None:
    """Seal `api_key` into the provider; the caller saves it. An empty key removes it."""
    provider.credential = seal(api_key, bound_to=_binding(provider), ring=settings.ENCRYPTION_KEYS) if api_key else ""


def open_credential(provider: Provider) -> str:
    """The provider's API key: the sealed one, else the environment variable's value, else "".

    Raises ConfigurationError when the sealed one cannot be opened for this provider and host."""
    if provider.credential:
        return unseal(provider.credential, bound_to=_binding(provider), ring=settings.ENCRYPTION_KEYS)
    return os.environ.get(provider.api_key_env, "") if provider.api_key_env else ""


def is_bound_to(provider: Provider, base_url: str) -> bool:
    """Whether a credential of this provider could still be opened after a change to `base_url`."""
    return urlsplit(provider.base_url)[:2] == urlsplit(base_url)[:2]


def _binding(provider: Provider) -> str:
    parts = urlsplit(provider.base_url)
    return f"provider:{provider.id}:{parts.scheme}://{parts.netloc}"
