"""An organization's own key at a provider as the data path gets it: sealed. Pure."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec


class OwnCredential(msgspec.Struct, frozen=True):
    """A provider key that a request may be made with. `sealed` opens for one host of the provider's alone."""

    id: str
    organization_id: str
    provider: str
    sealed: str
    options: dict[str, str] = {}
    """What of the provider's options is otherwise with this key: the names in SETTABLE_OPTIONS."""
    models: tuple[str, ...] = ()
    """The models that it is for; none: all that the provider serves."""
    is_exclusive: bool = False
    """Whatever it could serve is never asked for with the operator's credential."""

    def is_for(self, model_id: str) -> bool:
        """Whether requests for this model may use it."""
        return not self.models or model_id in self.models

    def binding_for(self, base_url: str) -> str:
        """What the key was sealed for, if it was sealed for this address."""
        return binding(self.id, self.organization_id, provider_id=self.provider, base_url=base_url)

    def __repr__(self) -> str:
        return f"OwnCredential({self.id!r}, {self.provider!r})"


OWN_KINDS: dict[str, tuple[str, ...]] = {
    "azure": ("api-key", "entra", "entra-client"),
    "bedrock": ("sigv4", "bearer"),
}
"""Dialect -> the kinds of key that an organization can bring, the usual one first: never the role of the operator's
machine."""
SETTABLE_OPTIONS: dict[str, tuple[str, ...]] = {"azure": ("auth",), "bedrock": ("auth",)}
"""Dialect -> the options that belong to a key and not to the address. Everything else is the operator's to say."""


def kind_of(dialect: str, options: Mapping[str, str], operators: Mapping[str, str]) -> str:
    """The kind of a key with these options, at a provider with the operator's; "" where there is but one.

    What an organization does not say is as the operator's, unless no organization can have such a key."""
    known = OWN_KINDS.get(dialect)
    if known is None:
        return ""
    auth = options.get("auth") or operators.get("auth", "")
    return auth if auth in known else known[0]


def binding(credential_id: str, organization_id: str, *, provider_id: str, base_url: str) -> str:
    """What a key is sealed with: in another row, for another organization or host it does not open."""
    parts = urlsplit(base_url)
    return f"own:{credential_id}:{organization_id}:{provider_id}:{parts.scheme}://{parts.netloc}"
