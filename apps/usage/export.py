"""Usage records as plain rows, for files."""

from collections.abc import Iterator
from datetime import datetime

from apps.accounts.models import Project
from apps.core.money import format_usd
from apps.usage.models import UsageRecord

COLUMNS = (
    "request_id",
    "created_at",
    "key_id",
    "project",
    "model",
    "provider",
    "status",
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
    "images",
    "service_tier",
    "cost_usd",
    "is_byok",
    "cached",
    "saved_usd",
    "estimated",
    "sandbox",
    "streamed",
    "endpoint",
    "http_status",
    "error_code",
    "finish_reason",
    "duration_ms",
    "first_byte_ms",
    "price_version_id",
)
_CHUNK_ROWS = 2_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def iter_rows(
    organization_id: str, *, since: datetime | None = None, until: datetime | None = None, sandbox: bool = False
) -> Iterator[dict[str, object]]:
    """One row a request, oldest first, keyed by COLUMNS. `project` is the project's slug; costs have nine places.

    Live traffic, or with `sandbox` test traffic: never both."""
    projects = dict(Project.objects.for_organization(organization_id).values_list("id", "slug"))
    records = UsageRecord.objects.for_organization(organization_id).filter(sandbox=sandbox)
    records = records.order_by("day", "request_id")
    if since is not None:
        records = records.filter(day__gte=since.date(), created_at__gte=since)
    if until is not None:
        records = records.filter(day__lte=until.date(), created_at__lt=until)
    for record in records.iterator(chunk_size=_CHUNK_ROWS):
        row: dict[str, object] = {name: getattr(record, name, None) for name in COLUMNS}
        row["created_at"] = record.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row["project"] = projects.get(record.project_id, record.project_id)
        row["cost_usd"] = format_usd(record.cost_nanos)
        row["cached"] = record.is_cached
        row["saved_usd"] = format_usd(record.saved_nanos)
        yield row


def csv_cell(value: object) -> object:
    """The value as it stands in a CSV file: `true`, `false`, "" for none.

    Text that a spreadsheet would run as a formula gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
