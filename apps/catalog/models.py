"""Providers, models, routes and dated price versions, as the operator keeps them."""

from typing import Any, ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from apps.catalog.contracts import (
    BUCKETS,
    FULL_SHARE_PPM,
    IMAGE_TOKENS,
    MAX_CACHE_TTL_S,
    MAX_FIRST_BYTE_TIMEOUT_S,
    OUTPUT_LIMIT_FIELDS,
    QUANTIZATIONS,
    UNSUPPORTED_POLICIES,
    CacheTerms,
)
from apps.catalog.maintenance_document import MAX_NOTE_CHARACTERS
from apps.catalog.price_document import MAX_FLAT, MAX_PRICE
from apps.catalog.price_entries import AMOUNTS, FLAT
from apps.core.limit_fields import in_range, rate_field
from apps.core.limits import MAX_RATE
from apps.policies.data_rules import REGION_PATTERN

MODALITIES = ["text", "image", "audio", "file", "video"]
OUTPUT_MODALITIES = [*MODALITIES, "embeddings"]
MODEL_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"

BASE_URL_PATTERN = r"^https?://[A-Za-z0-9.\-\[\]:_]+(/[^\s?#@]*)?$"
"""Hosts with a single label too: that is how services find each other inside one installation."""
BASE_URL_HELP = "Enter an http or https address without user, query or fragment."


class Dialect(models.TextChoices):
    """The API that a provider speaks."""

    OPENAI = "openai", "OpenAI"
    OPENAI_RESPONSES = "openai-responses", "OpenAI Responses"
    AZURE = "azure", "Azure OpenAI"
    ANTHROPIC = "anthropic", "Anthropic"
    GEMINI = "gemini", "Google Gemini"
    BEDROCK = "bedrock", "AWS Bedrock"


def _price(*, optional: bool = False, explanation: str = "") -> "models.DecimalField[Any, Any]":
    return models.DecimalField(
        max_digits=20,
        decimal_places=9,
        null=optional,
        blank=optional,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_PRICE)],
        help_text=f"USD per million tokens. {explanation}".strip(),
    )


def _flat_price(explanation: str) -> "models.DecimalField[Any, Any]":
    return models.DecimalField(
        max_digits=20,
        decimal_places=9,
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(MAX_FLAT)],
        help_text=f"USD. {explanation}",
    )


def text_only() -> list[str]:
    return ["text"]


class Maintained(models.Model):
    """Something that gets no new requests from `maintenance_from` to `maintenance_until`."""

    maintenance_from = models.DateTimeField(null=True, blank=True, help_text="No new requests from then on (UTC).")
    maintenance_until = models.DateTimeField(null=True, blank=True, help_text="Requests again from then on (UTC).")
    maintenance_note = models.CharField(
        max_length=MAX_NOTE_CHARACTERS, blank=True, help_text="Customers can read it at /models/{id}/endpoints."
    )

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=Q(maintenance_from__isnull=True, maintenance_until__isnull=True)
                | Q(
                    maintenance_from__isnull=False,
                    maintenance_until__isnull=False,
                    maintenance_until__gt=F("maintenance_from"),
                ),
                name="%(class)s_maintenance_is_a_window",
                violation_error_message="Maintenance has both a beginning and a later end, or neither.",
            )
        ]


class Provider(Maintained):
    """An upstream account: where requests go and with which credential.

    The credential is either sealed here (bound to the host of `base_url`) or named by an environment variable."""

    id = models.SlugField(primary_key=True, max_length=60)
    name = models.CharField(max_length=100)
    dialect = models.CharField(max_length=20, choices=Dialect.choices, default=Dialect.OPENAI)
    base_url = models.CharField(
        "base URL",
        max_length=500,
        validators=[RegexValidator(BASE_URL_PATTERN, BASE_URL_HELP)],
        help_text="Up to and with /v1, without a slash at the end. For Azure, Gemini and Bedrock up to the host.",
    )
    credential = models.TextField(blank=True, editable=False)
    api_key_env = models.CharField(
        "API key variable",
        max_length=100,
        blank=True,
        validators=[RegexValidator(r"^[A-Za-z_][A-Za-z0-9_]*$")],
        help_text="Environment variable of the gateway that holds the API key.",
    )
    enabled = models.BooleanField(default=True)
    sandbox = models.BooleanField(
        default=False,
        help_text="Sandbox keys may use it, and nobody is charged for that: only for upstreams that cost nothing.",
    )
    output_limit_field = models.CharField(
        max_length=30,
        choices=[(field, field) for field in OUTPUT_LIMIT_FIELDS],
        default=OUTPUT_LIMIT_FIELDS[0],
        help_text="What CRUN writes where it must cut an output. OpenAI and Azure want max_completion_tokens.",
    )
    options = models.JSONField(
        default=dict, blank=True, help_text="What else the dialect asks for: one name and value a line."
    )
    region = models.CharField(
        max_length=20,
        blank=True,
        validators=[RegexValidator(f"^{REGION_PATTERN}$")],
        help_text="Where prompts are worked on, such as eu or us-east. Customers may allow only some regions.",
    )
    collects_data = models.BooleanField(
        default=True,
        help_text="It may keep prompts, or learn from them. Off only where its terms say that it does not.",
    )
    zero_retention = models.BooleanField(
        default=False, help_text="It keeps nothing of a request once that is answered."
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(Maintained.Meta):
        abstract = False
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name or self.id


class Model(models.Model):
    """A language model under its public id."""

    id = models.CharField(primary_key=True, max_length=128, validators=[RegexValidator(MODEL_ID_PATTERN)])
    name = models.CharField(max_length=200)
    vendor = models.CharField(max_length=100)
    description = models.TextField(blank=True)
    context_length = models.PositiveIntegerField(validators=[MinValueValidator(1)], help_text="Tokens.")
    max_output_tokens = models.PositiveIntegerField(validators=[MinValueValidator(1)], help_text="Tokens.")
    input_modalities = ArrayField(models.CharField(max_length=10), default=text_only)
    output_modalities = ArrayField(models.CharField(max_length=10), default=text_only)
    tokenizer = models.CharField(max_length=50, blank=True)
    image_tokens = models.PositiveIntegerField(
        default=IMAGE_TOKENS,
        validators=[MinValueValidator(1)],
        help_text="Tokens that are held for each image: the most that the vendor bills for one.",
    )
    requests_per_minute = rate_field("requests_per_minute", "For each organization.")
    tokens_per_minute = rate_field("tokens_per_minute", "For each organization; input and output together.")
    unsupported_parameters = models.CharField(
        max_length=10,
        choices=[(policy, policy) for policy in UNSUPPORTED_POLICIES],
        default=UNSUPPORTED_POLICIES[0],
        help_text="What a provider has no words for: drop leaves it out and names it, refuse answers with an error.",
    )
    first_byte_timeout_s = models.PositiveIntegerField(
        "first byte timeout",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_FIRST_BYTE_TIMEOUT_S)],
        help_text="Seconds that a stream may take to begin; empty: CRUN_UPSTREAM_FIRST_BYTE_TIMEOUT_S.",
    )
    cache_default = models.BooleanField(
        "keep answers without being asked", default=False, help_text="For requests that say nothing about the cache."
    )
    cache_ttl_s = models.IntegerField(
        "kept for",
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_CACHE_TTL_S)],
        help_text="Seconds, where a request does not say. Empty: as the installation says.",
    )
    cache_share_ppm = models.IntegerField(
        "price of a kept answer",
        null=True,
        blank=True,
        validators=[MinValueValidator(0), MaxValueValidator(FULL_SHARE_PPM)],
        help_text="Parts per million of the price: 100000 is 10 %. Empty: as the installation says.",
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["vendor", "id"]
        constraints = [
            models.CheckConstraint(condition=Q(context_length__gte=1), name="model_context_length_positive"),
            models.CheckConstraint(condition=Q(max_output_tokens__gte=1), name="model_max_output_tokens_positive"),
            models.CheckConstraint(condition=Q(id__regex=MODEL_ID_PATTERN), name="model_id_well_formed"),
            in_range("first_byte_timeout_s", 1, MAX_FIRST_BYTE_TIMEOUT_S),
            in_range("requests_per_minute", 1, MAX_RATE),
            in_range("tokens_per_minute", 1, MAX_RATE),
            in_range("cache_ttl_s", 1, MAX_CACHE_TTL_S),
            in_range("cache_share_ppm", 0, FULL_SHARE_PPM),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def cache(self) -> CacheTerms:
        """How its answers are kept and given again."""
        return CacheTerms(default=self.cache_default, ttl_s=self.cache_ttl_s, share_ppm=self.cache_share_ppm)


class Route(Maintained):
    """One way to serve a model: a provider and the name that the model has there."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="routes")
    provider = models.ForeignKey(Provider, on_delete=models.PROTECT, related_name="routes")
    upstream_model = models.CharField(max_length=200)
    weight = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(1000)])
    shadow_percent = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="Answers nobody: copies of this share of conversations come here, at your cost. 0: a usual route.",
    )
    canary_percent = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="A route on trial: this share of conversations comes here first, all others last. 0: by weight.",
    )
    quantization = models.CharField(
        max_length=10, choices=[(name, name) for name in QUANTIZATIONS], default=QUANTIZATIONS[0]
    )
    enabled = models.BooleanField(default=True)

    class Meta(Maintained.Meta):
        abstract = False
        ordering = ["model", "id"]
        constraints = [
            *Maintained.Meta.constraints,
            models.UniqueConstraint(fields=["model", "provider", "upstream_model"], name="route_unique"),
            models.CheckConstraint(condition=Q(weight__gte=1, weight__lte=1000), name="route_weight_in_range"),
            models.CheckConstraint(condition=Q(canary_percent__lte=100), name="route_canary_in_range"),
            models.CheckConstraint(condition=Q(shadow_percent__lte=100), name="route_shadow_in_range"),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} at {self.provider_id}"


class PriceVersion(models.Model):
    """What a model costs from a moment on. Never edited and never deleted: a correction is a new version.

    `variants` are other prices for some requests, as `price_entries.variants_as_json` writes them, in the order
    in which they are looked at.

    The database refuses UPDATE and DELETE (trigger in migration 0002)."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="prices")
    starts_at = models.DateTimeField(default=timezone.now, help_text="In force from this moment on (UTC).")
    input = _price(explanation="Input that no prompt cache served.")
    output = _price()
    cache_read = _price(optional=True, explanation="Input read from the prompt cache; empty: as input.")
    cache_write = _price(optional=True, explanation="Input written to the prompt cache; empty: as input.")
    reasoning = _price(optional=True, explanation="Reasoning output; empty: as output.")
    cache_write_1h = _price(optional=True, explanation="Input written to a cache for an hour; empty: as cache write.")
    audio_input = _price(optional=True, explanation="Empty: as input.")
    image_input = _price(optional=True, explanation="Empty: as input.")
    audio_output = _price(optional=True, explanation="Empty: as output.")
    image_output = _price(optional=True, explanation="Empty: as output.")
    per_request = _flat_price("For each request that has tokens; empty: nothing.")
    per_image = _flat_price("For each image that a request brings; empty: nothing.")
    variants = models.JSONField(default=list, blank=True, help_text="Other prices for some requests.")
    note = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=254, blank=True, editable=False)

    BUCKETS: ClassVar[tuple[str, ...]] = BUCKETS
    AMOUNTS: ClassVar[tuple[str, ...]] = AMOUNTS

    class Meta:
        ordering = ["model", "-starts_at"]
        constraints = [
            models.UniqueConstraint(fields=["model", "starts_at"], name="price_start_unique"),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{bucket}__range": (0, MAX_PRICE)}) | Q(**{f"{bucket}__isnull": True}),
                    name=f"price_{bucket}_in_range",
                )
                for bucket in BUCKETS
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{name}__range": (0, MAX_FLAT)}) | Q(**{f"{name}__isnull": True}),
                    name=f"price_{name}_in_range",
                )
                for name in FLAT
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model_id} from {self.starts_at:%Y-%m-%d %H:%M}"


class CatalogVersion(models.Model):
    """One row: a number that grows with every change of the tables above (triggers in migration 0002)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    number = models.PositiveBigIntegerField(default=1, editable=False)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="catalog_version_is_one_row")]

    def __str__(self) -> str:
        return str(self.number)
