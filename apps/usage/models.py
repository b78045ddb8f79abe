"""Usage: one append-only record a request, and hourly sums of them."""

from typing import ClassVar

from django.db import models

from apps.core.ids import ID_LENGTH
from apps.core.models import OrganizationScoped
from apps.usage.contracts import Outcome

TOKEN_COLUMNS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
)
"""One column a bucket of `TokenCounts`, in its order; the buckets are disjoint."""
OUTPUT_COLUMNS = ("output_tokens", "reasoning_tokens", "audio_output_tokens", "image_output_tokens")
INPUT_COLUMNS = tuple(column for column in TOKEN_COLUMNS if column not in OUTPUT_COLUMNS)
REVIEW_LENGTH = 200
ENDPOINT_LENGTH = 30
ERROR_CODE_LENGTH = 60


class UsageRecord(OrganizationScoped):
    """What one request used and cost. Written once by `recording`, never changed.

    The table is partitioned by `day`, which is derived from the time-ordered request id: the database's primary key
    (day, request_id) therefore makes request ids unique for ever. Names instead of foreign keys: a record outlives
    the key, project or model that it names."""

    request_id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    day = models.DateField()
    created_at = models.DateTimeField()
    organization = models.ForeignKey(
        "accounts.Organization",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
        db_index=False,
    )
    project_id = models.CharField(max_length=ID_LENGTH)
    key_id = models.CharField(max_length=ID_LENGTH)
    model = models.CharField(max_length=128)
    provider = models.CharField(max_length=60)
    upstream_model = models.CharField(max_length=200)
    streamed = models.BooleanField()
    status = models.CharField(max_length=20, choices=[(outcome.value, outcome.value.title()) for outcome in Outcome])
    http_status = models.PositiveSmallIntegerField()
    error_code = models.CharField(max_length=60)
    finish_reason = models.CharField(max_length=40)
    input_tokens = models.PositiveBigIntegerField()
    cache_read_tokens = models.PositiveBigIntegerField()
    cache_write_tokens = models.PositiveBigIntegerField()
    output_tokens = models.PositiveBigIntegerField()
    reasoning_tokens = models.PositiveBigIntegerField()
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    audio_input_tokens = models.PositiveBigIntegerField(default=0)
    image_input_tokens = models.PositiveBigIntegerField(default=0)
    audio_output_tokens = models.PositiveBigIntegerField(default=0)
    image_output_tokens = models.PositiveBigIntegerField(default=0)
    images = models.PositiveIntegerField(default=0)
    service_tier = models.CharField(max_length=20, default="")
    estimated = models.BooleanField()
    price_version_id = models.BigIntegerField()
    price_rule_id = models.CharField(max_length=ID_LENGTH, default="")
    cache_share_ppm = models.PositiveIntegerField(null=True)
    saved_nanos = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField()
    overage_nanos = models.BigIntegerField(default=0)
    hold_nanos = models.BigIntegerField(null=True)
    balance_before_nanos = models.BigIntegerField(null=True)
    sandbox = models.BooleanField(default=False)
    raw_usage = models.TextField(default="")
    review = models.CharField(max_length=REVIEW_LENGTH, default="")
    attempts = models.JSONField(default=list)
    guardrails = models.JSONField(default=list)
    credential_id = models.CharField(max_length=ID_LENGTH, default="")
    fee_ppm = models.PositiveIntegerField(null=True)
    endpoint = models.CharField(max_length=ENDPOINT_LENGTH, default="")
    duration_ms = models.PositiveIntegerField()
    first_byte_ms = models.PositiveIntegerField(null=True)
    recorded_at = models.DateTimeField()

    class Meta:
        ordering: ClassVar[list[str]] = ["-request_id"]

    def __str__(self) -> str:
        return self.request_id

    @property
    def is_byok(self) -> bool:
        """Whether its cost is a fee: the organization's own provider key served it, or made the kept answer."""
        return bool(self.credential_id) or self.fee_ppm is not None

    @property
    def tokens_in(self) -> int:
        """All input, whether a prompt cache served it or not."""
        return sum(getattr(self, column) for column in INPUT_COLUMNS)

    @property
    def tokens_out(self) -> int:
        """All output, with reasoning."""
        return sum(getattr(self, column) for column in OUTPUT_COLUMNS)

    @property
    def is_cached(self) -> bool:
        """Whether the response cache answered it."""
        return self.cache_share_ppm is not None


class UnpostedUsage(models.Model):
    """The work list of posting: records that are not in the rollups yet."""

    request_id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    day = models.DateField()

    class Meta:
        verbose_name_plural = "unposted usage"

    def __str__(self) -> str:
        return self.request_id


class UsageRollup(OrganizationScoped):
    """Sums over one UTC hour for one key, model and provider. Always equal to the posted records.

    Test traffic (`sandbox`) has rows of its own: what it costs is never charged. So has what organizations' own
    provider keys served (`byok`): its cost is a fee."""

    hour = models.DateTimeField()
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    project_id = models.CharField(max_length=ID_LENGTH)
    key_id = models.CharField(max_length=ID_LENGTH)
    model = models.CharField(max_length=128)
    provider = models.CharField(max_length=60)
    requests = models.PositiveBigIntegerField()
    failed_requests = models.PositiveBigIntegerField()
    estimated_requests = models.PositiveBigIntegerField()
    input_tokens = models.PositiveBigIntegerField()
    cache_read_tokens = models.PositiveBigIntegerField()
    cache_write_tokens = models.PositiveBigIntegerField()
    output_tokens = models.PositiveBigIntegerField()
    reasoning_tokens = models.PositiveBigIntegerField()
    cache_write_1h_tokens = models.PositiveBigIntegerField(default=0)
    audio_input_tokens = models.PositiveBigIntegerField(default=0)
    image_input_tokens = models.PositiveBigIntegerField(default=0)
    audio_output_tokens = models.PositiveBigIntegerField(default=0)
    image_output_tokens = models.PositiveBigIntegerField(default=0)
    sandbox = models.BooleanField(default=False)
    byok = models.BooleanField(default=False)
    cost_nanos = models.BigIntegerField()
    cached_requests = models.PositiveBigIntegerField(default=0)
    saved_nanos = models.BigIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "hour", "project_id", "key_id", "model", "provider", "sandbox", "byok"],
                name="rollup_unique",
            )
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["hour"], name="rollup_by_hour")]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.hour:%Y-%m-%d %H}h {self.model}"


class UsageReview(OrganizationScoped):
    """A record whose usage, as the upstream told it, breaks a rule: for an operator to look at. Written with the
    record, which itself never changes; only the last three columns are filled in later."""

    request_id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    model = models.CharField(max_length=128)
    provider = models.CharField(max_length=60)
    reason = models.CharField(max_length=REVIEW_LENGTH)
    note = models.CharField(max_length=1000, default="")
    reviewed_by = models.CharField(max_length=254, default="")
    reviewed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "usage to review"
        ordering: ClassVar[list[str]] = ["-request_id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["-request_id"], name="review_waiting", condition=models.Q(reviewed_at__isnull=True))
        ]

    def __str__(self) -> str:
        return self.request_id


class ShadowRecord(OrganizationScoped):
    """A copy of a request that went to a route on trial: for the operator, who pays for it. In no sum, on no bill."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH)
    created_at = models.DateTimeField()
    organization = models.ForeignKey(
        "accounts.Organization", on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False
    )
    request_id = models.CharField(max_length=ID_LENGTH)
    model = models.CharField(max_length=128)
    provider = models.CharField(max_length=60)
    upstream_model = models.CharField(max_length=200)
    status = models.CharField(max_length=20, choices=[(outcome.value, outcome.value.title()) for outcome in Outcome])
    error_code = models.CharField(max_length=ERROR_CODE_LENGTH, default="")
    input_tokens = models.PositiveBigIntegerField()
    cache_read_tokens = models.PositiveBigIntegerField()
    output_tokens = models.PositiveBigIntegerField()
    duration_ms = models.PositiveIntegerField()

    class Meta:
        verbose_name = "copy"
        verbose_name_plural = "copies to routes on trial"
        ordering: ClassVar[list[str]] = ["-id"]

    def __str__(self) -> str:
        return self.id
