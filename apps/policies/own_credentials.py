"""An organization's own key at a provider as the data path gets it: sealed. Pure."""

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


SETTABLE_OPTIONS: dict[str, tuple[str, ...]] = {"azure": ("auth",), "bedrock": ("auth",)}
"""Dialect -> the options that belong to a key and not to the address. Everything else is the operator's to say."""


def binding(credential_id: str, organization_id: str, *, provider_id: str, base_url: str) -> str:
    """What a key is sealed with: in another row, for another organization or host it does not open."""
    parts = urlsplit(base_url)
    return f"own:{credential_id}:{organization_id}:{provider_id}:{parts.scheme}://{parts.netloc}"
