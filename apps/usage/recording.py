"""Writing usage records: the only writer. The same request twice is one record."""

from collections.abc import Sequence
from typing import Any

import msgspec
from django.db import connection, transaction

from apps.core.ids import created_at
from apps.usage.contracts import RequestClosed, ShadowMade
from apps.usage.models import ENDPOINT_LENGTH, ERROR_CODE_LENGTH, REVIEW_LENGTH, ShadowRecord
from apps.usage.partitions import ensure_partitions

_COLUMNS = (
    "day, request_id, created_at, organization_id, project_id, key_id, model, provider, upstream_model, streamed,"
    " status, http_status, error_code, finish_reason, input_tokens, cache_read_tokens, cache_write_tokens,"
    " output_tokens, reasoning_tokens, cache_write_1h_tokens, audio_input_tokens, image_input_tokens,"
    " audio_output_tokens, image_output_tokens, images, service_tier, estimated, price_version_id,"
    " price_rule_id, cache_share_ppm, saved_nanos, cost_nanos, overage_nanos, hold_nanos, balance_before_nanos,"
    " sandbox, raw_usage, review, attempts, guardrails, credential_id, fee_ppm, endpoint, duration_ms, first_byte_ms"
)
_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS arriving (LIKE usage_usagerecord INCLUDING DEFAULTS) ON COMMIT DELETE ROWS;
TRUNCATE arriving
"""
_INSERT = f"""
WITH arrived AS (
    INSERT INTO usage_usagerecord ({_COLUMNS})
    SELECT DISTINCT ON (day, request_id) {_COLUMNS} FROM arriving
    ON CONFLICT (day, request_id) DO NOTHING
    RETURNING day, request_id, organization_id, model, provider, review
), to_review AS (
    INSERT INTO usage_usagereview (request_id, organization_id, model, provider, reason, note, reviewed_by)
    SELECT request_id, organization_id, model, provider, review, '', '' FROM arrived WHERE review <> ''
)
INSERT INTO usage_unpostedusage (day, request_id) SELECT day, request_id FROM arrived
"""  # noqa: S608 - the columns are a constant of this file


def record(closed: Sequence[RequestClosed]) -> int:
    """Insert what is not there yet and put it on the work list of posting, in one transaction.

    Returns the number of new records. Raises django.db.Error when PostgreSQL is away; then nothing was written, or
    all was and the next try finds it."""
    if not closed:
        return 0
    rows = [_row(entry) for entry in closed]
    ensure_partitions({row[0] for row in rows})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_STAGE)
        copying = f"COPY arriving ({_COLUMNS}) FROM STDIN"
        with connection.wrap_database_errors, cursor.copy(copying) as copy:  # Django does not wrap COPY by itself
            for row in rows:
                copy.write_row(row)
        cursor.execute(_INSERT)
        return int(cursor.rowcount)


def record_shadows(shadows: Sequence[ShadowMade]) -> None:
    """Insert copies of requests that are not there yet. They are on no work list: nobody is charged for them. Raises
    django.db.Error when PostgreSQL is away."""
    rows = [
        ShadowRecord(
            id=shadow.shadow_id,
            created_at=created_at(shadow.shadow_id),
            organization_id=shadow.organization_id,
            request_id=shadow.of_request,
            model=shadow.model,
            provider=shadow.provider,
            upstream_model=shadow.upstream_model,
            status=shadow.outcome.value,
            error_code=shadow.error_code[:ERROR_CODE_LENGTH],
            input_tokens=shadow.tokens.all_input,
            cache_read_tokens=shadow.tokens.cache_read,
            output_tokens=shadow.tokens.all_output,
            duration_ms=shadow.duration_ms,
        )
        for shadow in shadows
    ]
    if rows:
        ShadowRecord.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1_000)


def _row(entry: RequestClosed) -> tuple[Any, ...]:
    """The values of _COLUMNS, the day first."""
    opened, tokens = entry.opened, entry.tokens
    moment = created_at(opened.request_id)
    return (
        moment.date(),
        opened.request_id,
        moment,
        opened.organization_id,
        opened.project_id,
        opened.key_id,
        opened.model,
        opened.provider,
        opened.upstream_model,
        opened.streamed,
        entry.outcome.value,
        entry.http_status,
        entry.error_code,
        entry.finish_reason,
        tokens.input,
        tokens.cache_read,
        tokens.cache_write,
        tokens.output,
        tokens.reasoning,
        tokens.cache_write_1h,
        tokens.audio_input,
        tokens.image_input,
        tokens.audio_output,
        tokens.image_output,
        opened.images,
        entry.service_tier,
        entry.estimated,
        opened.price.version_id,
        opened.price.rule_id,
        None if opened.cache_hit is None else opened.cache_hit.share_ppm,
        entry.saved_nanos,
        entry.cost_nanos,
        entry.overage_nanos,
        opened.hold_nanos,
        opened.balance_nanos,
        opened.sandbox,
        entry.raw_usage,
        entry.review[:REVIEW_LENGTH],
        msgspec.json.encode(entry.attempts).decode() if entry.attempts else "[]",
        msgspec.json.encode(entry.guardrails).decode() if entry.guardrails else "[]",
        opened.credential_id,
        opened.price.fee_ppm,
        opened.endpoint[:ENDPOINT_LENGTH],
        entry.duration_ms,
        entry.first_byte_ms,
    )
