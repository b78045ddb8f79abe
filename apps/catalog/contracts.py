"""What the data path knows of the catalog: frozen values, prices as integers."""

import msgspec

from apps.core.limits import Limits

BUCKETS = (
    "input",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "audio_input",
    "image_input",
    "output",
    "reasoning",
    "audio_output",
    "image_output",
)
"""All buckets of tokens that have a price of their own, input first."""
CONTAINING = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "image_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}
"""Bucket -> the bucket whose price it has when it has none of its own."""
SERVICE_TIERS = ("batch", "flex", "priority")
"""The tiers beside the standard one, which is ""."""
OUTPUT_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
"""Request fields that say where an output must end; the first is the one that nearly all providers know."""
IMAGE_TOKENS = 8_192
"""No image has more tokens than this, unless the catalog says so of its model."""
QUANTIZATIONS = ("unknown", "int4", "int8", "fp4", "fp6", "fp8", "fp16", "bf16", "fp32")
"""How a route's provider keeps the weights of the model, in OpenRouter's words; the first is what is not known."""
UNSUPPORTED_POLICIES = ("drop", "refuse")
"""What becomes of a request field that a route has no words for: left out and named, or the request is refused."""
MINUTES_PER_DAY = 1_440
MAX_FIRST_BYTE_TIMEOUT_S = 3_600
"""Nobody waits longer for a stream to begin."""
FULL_SHARE_PPM = 1_000_000
"""The whole price, in parts per million."""
MAX_CACHE_TTL_S = 86_400


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24:02d}:{minute % 60:02d}"


def conditions_in_words(min_input_tokens: int, service_tier: str, window: tuple[str, str] | None) -> str:
    """The conditions of a variant: `from 200,000 input tokens, priority, 22:00 to 06:00 UTC`; "" without any."""
    parts = [
        f"from {min_input_tokens:,} input tokens" if min_input_tokens else "",
        service_tier,
        f"{window[0]} to {window[1]} UTC" if window else "",
    ]
    return ", ".join(filter(None, parts))


class Rates(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request costs: integer nano-USD per million tokens of each bucket, and flat nano-USD.

    None: as the containing bucket. A request without a single token costs nothing, not even the flat part."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    cache_write_1h: int | None = None
    audio_input: int | None = None
    image_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    per_request: int = 0
    per_image: int = 0
    """For each image that the request brings."""

    def of(self, bucket: str) -> int:
        """The price of one of BUCKETS, in nano-USD per million tokens."""
        amount: int | None = getattr(self, bucket)
        return self.of(CONTAINING[bucket]) if amount is None else amount


class PriceVariant(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """Other rates for the whole request, for requests that meet all of its conditions.

    A request meets them when it read `min_input_tokens` or more, was served at `service_tier` ("": at any) and began
    in the daily UTC window: minutes since midnight, from the first on and before the last; a window whose end is not
    after its beginning goes over midnight."""

    min_input_tokens: int = 0
    service_tier: str = ""
    from_minute: int = 0
    until_minute: int = MINUTES_PER_DAY

    @property
    def has_window(self) -> bool:
        """Whether the time of day matters."""
        return self.from_minute % MINUTES_PER_DAY != self.until_minute % MINUTES_PER_DAY

    @property
    def window(self) -> tuple[str, str]:
        """The window in UTC: `("22:00", "06:00")`."""
        return _clock(self.from_minute), _clock(self.until_minute)

    @property
    def conditions(self) -> str:
        """The conditions in words."""
        return conditions_in_words(self.min_input_tokens, self.service_tier, self.window if self.has_window else None)

    def includes_minute(self, minute: int) -> bool:
        """Whether a request that began in this minute of the UTC day can have these rates."""
        if self.from_minute < self.until_minute:
            return self.from_minute <= minute < self.until_minute
        return minute >= self.from_minute or minute < self.until_minute


class Price(Rates, frozen=True, kw_only=True, omit_defaults=True):
    """A price version: its rates, and the variants of it, of which the first that fits a request replaces them.

    `starts_at` is in Unix seconds."""

    version_id: int
    starts_at: float
    variants: tuple[PriceVariant, ...] = ()
    rule_id: str = ""
    """The rule of an organization's price book that made it from the list price; "" for the list price itself."""
    fee_ppm: int | None = None
    """Set where it is a fee: this part of what the organization would pay, because the vendor bills its own key."""

    @property
    def charges_images(self) -> bool:
        """Whether it matters how many images a request brings."""
        return bool(self.per_image) or any(variant.per_image for variant in self.variants)


class Maintenance(msgspec.Struct, frozen=True):
    """A time, in Unix seconds, in which a route gets no new requests: `starts_at` is in it, `ends_at` is not."""

    starts_at: float
    ends_at: float
    note: str = ""
    """For customers."""


class Target(msgspec.Struct, frozen=True):
    """One usable route: its provider's address with the credential opened. Never logged, never shown."""

    provider: str
    dialect: str
    base_url: str
    upstream_model: str
    weight: int
    api_key: str
    is_sandbox: bool = False
    """Test traffic may go there: it answers without costing anybody anything."""
    output_limit_field: str = OUTPUT_LIMIT_FIELDS[0]
    """The one of OUTPUT_LIMIT_FIELDS that it is told in where CRUN must cut an output."""
    options: dict[str, str] = {}
    """What else its dialect asks for, by the names in `dialects.OPTIONS`, every default filled in."""
    maintenance: tuple[Maintenance, ...] = ()
    region: str = ""
    """Where prompts are worked on, in the operator's words; "" when that is not known."""
    collects_data: bool = True
    """Its provider may keep prompts, or learn from them: so unless the operator knows better."""
    zero_retention: bool = False
    """Its provider keeps nothing of a request once that is answered."""
    quantization: str = QUANTIZATIONS[0]
    shadow_percent: int = 0
    """The share of conversations of which it gets copies, and nothing else. 0: it is none."""
    canary_percent: int = 0
    """The share of conversations that it gets, whatever its weight: a route on trial. 0: it is none."""
    """The windows of the route and of its provider, the earlier first, as far as they were not over on loading."""
    credential_id: str = ""
    """The organization's own provider key that `api_key` is; "" for the operator's credential."""

    def __repr__(self) -> str:
        return f"Target({self.provider!r}, {self.upstream_model!r})"


class CacheTerms(msgspec.Struct, frozen=True):
    """How answers of a model are kept and given again. None: as the installation says."""

    default: bool = False
    """Whether requests that say nothing about it use the cache."""
    ttl_s: int | None = None
    share_ppm: int | None = None
    """What an answer out of the cache costs, in parts per million of the price."""


NO_CACHE_TERMS = CacheTerms()


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
    shadows: tuple[Target, ...] = ()
    """Routes that get copies of requests, and answer nobody."""
    limits: Limits = Limits()
    """What each organization may use of it: requests and tokens a minute."""
    image_tokens: int = IMAGE_TOKENS
    """No image that it is sent has more tokens than this."""
    refuses_unsupported: bool = False
    """A route that has no words for a field of a request is not asked; else it is asked without the field."""
    first_byte_timeout_s: int | None = None
    """How long its streams may take to begin; None: as long as all others."""
    has_maintenance: bool = False
    """Whether any of its routes has a window of maintenance, now or later."""
    cache: CacheTerms = NO_CACHE_TERMS

    @property
    def only_embeds(self) -> bool:
        """Whether nothing but embeddings comes out of it."""
        return self.output_modalities == ("embeddings",)

    @property
    def is_sandbox(self) -> bool:
        """Whether no route leads to a provider that costs money."""
        return all(target.is_sandbox for target in self.targets)

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
    moderation: Target | None = None
    """Who moderates for guardrails; None where the operator has set up nobody."""
    cached_by_default: frozenset[str] = frozenset()
    """The ids of those whose answers are kept when a request says nothing about it."""
