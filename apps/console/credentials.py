"""Whether a provider has a credential and where from: all that the console ever shows of one."""

import os
from dataclasses import dataclass

from apps.catalog.credentials import open_credential
from apps.catalog.models import Provider
from apps.core.errors import ConfigurationError


@dataclass(frozen=True)
class CredentialState:
    """`variant` is the colour of the label. A provider that names no key needs none (a local engine)."""

    label: str
    variant: str
    is_usable: bool


def credential_state(provider: Provider) -> CredentialState:
    """Where the provider's API key comes from. Variables are those of this process."""
    if provider.credential:
        return _stored(provider)
    if not provider.api_key_env:
        return CredentialState("No key", "default", is_usable=True)
    if os.environ.get(provider.api_key_env):
        return CredentialState(f"From {provider.api_key_env}", "success", is_usable=True)
    return CredentialState(f"{provider.api_key_env} is not set", "warning", is_usable=False)


def _stored(provider: Provider) -> CredentialState:
    try:
        open_credential(provider)
    except ConfigurationError:
        return CredentialState("Stored, but cannot be opened", "danger", is_usable=False)
    return CredentialState("Stored", "success", is_usable=True)
