"""Posting: unposted records are rated again, charged to their organizations and added to the hourly rollups."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import msgspec
from django.db import connection, transaction

from apps.billing.alerts.raising import raise_alert
from apps.billing.grants import UsageCharge, charge_usage
from apps.billing.models import AlertKind
from apps.billing.pricing.book import at_share
from apps.billing.pricing.loading import load_prices
from apps.billing.rating import cost_nanos
from apps.catalog.contracts import BUCKETS, Price
from apps.core.crash_points import crash_point
from apps.core.ids import utc_day
from apps.policies.credentials import note_uses
from apps.usage.contracts import AttemptMade, Outcome, TokenCounts
from apps.usage.rollups import add_to_rollups

BATCH_ROWS = 5_000
log = logging.getLogger(__name__)

# An array is made once. `IN (SELECT ... LIMIT)` may be planned as a join that asks again for each row, and takes more.
_CLAIM = """
WITH claimed AS (
    DELETE FROM usage_unpostedusage WHERE request_id = ANY(ARRAY(
        SELECT request_id FROM usage_unpostedusage ORDER BY request_id LIMIT %s FOR UPDATE SKIP LOCKED
    )) RETURNING day, request_id
)
SELECT record.organization_id, record.project_id, record.key_id, record.model, record.provider,
       record.status, record.estimated, record.input_tokens, record.cache_read_tokens, record.cache_write_tokens,
       record.output_tokens, record.reasoning_tokens, record.cache_write_1h_tokens, record.audio_input_tokens,
       record.image_input_tokens, record.audio_output_tokens, record.image_output_tokens, record.images,
       record.service_tier, record.price_version_id, record.price_rule_id, record.cache_share_ppm, record.saved_nanos,
       record.cost_nanos, record.overage_nanos, record.sandbox, record.review, record.request_id, record.credential_id,
       record.credential_id <> '' AS byok, record.fee_ppm, record.error_code, record.attempts::text
FROM usage_usagerecord record JOIN claimed USING (day, request_id)
"""


@transaction.atomic
def post_batch() -> int:
    """Claim up to BATCH_ROWS unposted records and post them in one transaction; returns how many.

    Claim, charges and rollups are committed together or not at all. Any number of workers may run it at the same
    time: a record is claimed by exactly one, wallets are locked before rollups and both in one order."""
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [BATCH_ROWS])
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]
    if rows:
        _check_rating(rows)
        charge_usage(_charges(rows))
        crash_point("P9")
        add_to_rollups(rows)
        _raise_reviews(rows)
        _note_own_keys(rows)
        crash_point("P15")
    return len(rows)


def _charges(rows: Sequence[dict[str, Any]]) -> list[UsageCharge]:
    """One charge for each organization whose records cost anything. The key names exactly these records.

    Test traffic is never charged."""
    costs: dict[str, int] = defaultdict(int)
    ids: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["sandbox"]:
            continue
        costs[row["organization_id"]] += row["cost_nanos"]
        ids[row["organization_id"]].append(row["request_id"])
    return [
        UsageCharge(owner, cost, _posting_key(sorted(ids[owner])), _usage_words(len(ids[owner])))
        for owner, cost in costs.items()
        if cost
    ]


def _usage_words(number: int) -> str:
    return f"Usage of {number} request{'' if number == 1 else 's'}"


def _raise_reviews(rows: Sequence[dict[str, Any]]) -> None:
    """Tell the operator of usage that breaks a rule: once a day for each provider and model.

    In one order, so that two workers cannot wait for each other in a circle."""
    found = {
        (str(utc_day(row["request_id"])), row["provider"], row["model"]): row
        for row in rows
        if row["review"] and not row["sandbox"]
    }
    for (day, provider, model), row in sorted(found.items(), key=itemgetter(0)):
        raise_alert(
            None,
            AlertKind.USAGE_REVIEW,
            key=f"{AlertKind.USAGE_REVIEW}:{day}:{provider}:{model}"[:200],
            subject=f"Usage to review: {provider} for {model}"[:200],
            text=f"{provider} for {model}: {row['review']}. See the console's reviews; one is {row['request_id']}.",
            details={"request_id": row["request_id"], "provider": provider, "model": model},
        )


def _note_own_keys(rows: Sequence[dict[str, Any]]) -> None:
    """Tell organizations' own provider keys when they were used and how the last of their calls ended."""
    uses: dict[str, str] = {}
    for row in sorted(rows, key=itemgetter("request_id")):
        if "credential_id" in row["attempts"]:
            made = msgspec.json.decode(row["attempts"], type=list[AttemptMade])
            uses |= {each.credential_id: _failure(each.outcome, each.error_code) for each in made if each.credential_id}
        elif row["credential_id"]:
            uses[row["credential_id"]] = _failure(row["status"], row["error_code"])
    if uses:
        note_uses(uses)


def _failure(status: str, error_code: str) -> str:
    return error_code if status == Outcome.FAILED else ""


def _posting_key(request_ids: list[str]) -> str:
    everyone = hashlib.sha256(" ".join(request_ids).encode()).hexdigest()
    return f"usage:{request_ids[0]}:{request_ids[-1]}:{len(request_ids)}:{everyone}"


def _check_rating(rows: Sequence[dict[str, Any]]) -> None:
    """Rate again what the gateway rated: the bill is the cost without what went beyond the hold.

    A difference is reported and what was recorded is posted: it was agreed at admission, and one odd record must not
    hold up all others."""
    prices = load_prices({_price_name(row) for row in rows})
    for row in rows:
        price = prices.get(_price_name(row))
        expected = None if price is None else _cost(row, price) - row["overage_nanos"]
        if expected != row["cost_nanos"]:
            rule_id = row["price_rule_id"]
            missing = f"the price version of a record does not exist{', or its price rule' if rule_id else ''}"
            log.error(
                "cost differs from its price version" if price else missing,
                extra={
                    "request_id": row["request_id"],
                    "price_rule": rule_id,
                    "recorded": row["cost_nanos"],
                    "expected": expected,
                },
            )


def _price_name(row: dict[str, Any]) -> tuple[int, str, int | None]:
    return row["price_version_id"], row["price_rule_id"], row["fee_ppm"]


def _cost(row: dict[str, Any], price: Price) -> int:
    tokens = TokenCounts(**{bucket: row[f"{bucket}_tokens"] for bucket in BUCKETS})
    price = at_share(price, row["cache_share_ppm"])
    return cost_nanos(
        tokens, price, request_id=row["request_id"], service_tier=row["service_tier"], images=row["images"]
    )
