"""What the data path knows of the catalog: frozen values, prices as integers."""

import msgspec


class Price(msgspec.Struct, frozen=True):
    """A price version. Amounts are integer nano-USD per million tokens; `starts_at` is in Unix seconds."""

    version_id: int
    starts_at: float
    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int


class Target(msgspec.Struct, frozen=True):
    """One usable route: its provider's address with the credential opened. Never logged, never shown."""

    provider: str
    dialect: str
    base_url: str
    upstream_model: str
    weight: int
    api_key: str

    def __repr__(self) -> str:
        return f"Target({self.provider!r}, {self.upstream_model!r})"


class OfferedModel(msgspec.Struct, frozen=True):
    """A model that can be called now. `created` is in Unix seconds; `prices` are ordered by start, latest first."""

    id: str
    name: str
    vendor: str
    description: str
    created: int
    context_length: int
    max_output_tokens: int
    input_modalities: tuple[str, ...]
    output_modalities: tuple[str, ...]
    tokenizer: str
    targets: tuple[Target, ...]
    prices: tuple[Price, ...]

    def price_at(self, moment: float) -> Price | None:
        """The version in force at `moment` (Unix seconds); None before the first."""
        for price in self.prices:
            if price.starts_at <= moment:
                return price
        return None


class CatalogSnapshot(msgspec.Struct, frozen=True):
    """Everything on offer at one version of the catalog: enabled models that have a usable route."""

    version: int
    models: dict[str, OfferedModel]
