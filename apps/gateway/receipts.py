"""Receipts for the API: readable the moment a response ends, wherever its record is on its way."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import orjson
from django.conf import settings

from apps.billing.receipt_reading import find_receipt, find_stored_receipt
from apps.billing.receipts import Arithmetic, Attempt, Receipt, ReceiptLine, Rerated, percent_of
from apps.catalog.contracts import Price
from apps.core.ids import created_at
from apps.core.money import TOKENS_PER_PRICE_UNIT, format_usd
from apps.gateway.server.bridge import DatabaseBridge
from apps.keys.contracts import KeyGrant
from apps.usage.contracts import Outcome

WAIT_S: Final = 3.0
"""So long may a record take to come from another machine's journal."""
FIRST_PAUSE_S: Final = 0.1
FRESH_MARGIN_S: Final = 60.0
MAX_LOOKS: Final = 2
"""Of the bridge's threads, so that keys can be read meanwhile."""
MAX_WAITING: Final = 32
"""More requests than this for what is not there yet are answered after one look."""
MAX_WAITING_OF_KEY: Final = 4
"""So many of them by one key."""
_DECIMALS: Final = 15
_OF_PRICES: Final = ("lines", "discounts", "sum", "rounding", "overage_not_billed", "correction")
"""What a receipt cannot tell where the prices of its request are not known."""


class Receipts:
    """Finds receipts for one worker."""

    def __init__(self, bridge: DatabaseBridge, journal_root: Path) -> None:
        self._bridge = bridge
        self._journal_root = journal_root
        self._looks = asyncio.Semaphore(MAX_LOOKS)
        self._waiting_of: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, grant: KeyGrant, request_id: str) -> Receipt | None:
        """The receipt of a request of the key's organization, live for live keys, sandbox for sandbox keys.

        One that may have ended just now is waited for, up to WAIT_S. Raises Unavailable without the database."""
        receipt = await self._look_everywhere(grant, request_id)
        if receipt is None and self._may_wait(grant.key_id) and _may_have_just_ended(request_id):
            self._waiting_of[grant.key_id] += 1
            try:
                receipt = await self._wait_for(grant, request_id)
            finally:
                self._waiting_of -= Counter({grant.key_id: 1})
        return receipt if receipt is not None and receipt.is_sandbox == grant.sandbox else None

    def _may_wait(self, key_id: str) -> bool:
        return self._waiting_of[key_id] < MAX_WAITING_OF_KEY and self._waiting_of.total() < MAX_WAITING

    async def _wait_for(self, grant: KeyGrant, request_id: str) -> Receipt | None:
        """Look for its record again and again, which is cheap, and once more everywhere at the end: what comes from
        another machine becomes a record, and what ends here meanwhile soon does too."""
        loop = asyncio.get_running_loop()
        deadline, pause_s, receipt = loop.time() + WAIT_S, FIRST_PAUSE_S, None
        while receipt is None and loop.time() + pause_s < deadline:
            await asyncio.sleep(pause_s)
            pause_s *= 2
            is_last = loop.time() + pause_s >= deadline
            receipt = await (self._look_everywhere if is_last else self._look_at_records)(grant, request_id)
        return receipt

    async def _look_everywhere(self, grant: KeyGrant, request_id: str) -> Receipt | None:
        """Reads whole journals, so each key has one such look at a time: whoever asks for what is not there does not
        keep others out."""
        turn = self._turns.setdefault(grant.key_id, asyncio.Lock())
        async with turn, self._looks:
            return await self._bridge.read(
                partial(find_receipt, grant.organization_id, request_id, journal_root=self._journal_root)
            )

    async def _look_at_records(self, grant: KeyGrant, request_id: str) -> Receipt | None:
        async with self._looks:
            return await self._bridge.read(partial(find_stored_receipt, grant.organization_id, request_id))


def _may_have_just_ended(request_id: str) -> bool:
    """Ids tell when a request began, and none lasts longer than its limit."""
    try:
        age_s = (datetime.now(UTC) - created_at(request_id)).total_seconds()
    except ValueError:
        return False
    limit_s: float = settings.UPSTREAM_TOTAL_TIMEOUT_S + FRESH_MARGIN_S
    return -FRESH_MARGIN_S < age_s < limit_s


def public_receipt(receipt: Receipt) -> dict[str, Any]:
    """OpenRouter's fields of a generation where they have a meaning here, and under `receipt` all of the arithmetic.

    OpenRouter's amounts are numbers; those of the receipt are decimal strings, because they are exact."""
    closed, opened, tokens = receipt.closed, receipt.closed.opened, receipt.closed.tokens
    cost = usd_number(closed.cost_nanos)
    return {
        "id": opened.request_id,
        "request_id": opened.request_id,
        "api_type": "embeddings" if opened.endpoint == "embeddings" else "completions",
        "endpoint": opened.endpoint or None,
        "model": opened.model,
        "created_at": _moment(created_at(opened.request_id)),
        "streamed": opened.streamed,
        "cancelled": closed.outcome is Outcome.CANCELLED,
        "status": closed.outcome.value,
        "http_status": closed.http_status,
        "error_code": closed.error_code or None,
        "finish_reason": closed.finish_reason or None,
        "native_finish_reason": closed.finish_reason or None,
        "latency": closed.first_byte_ms,
        "generation_time": closed.duration_ms - (closed.first_byte_ms or 0),
        "duration": closed.duration_ms,
        "tokens_prompt": tokens.all_input,
        "tokens_completion": tokens.all_output,
        "native_tokens_prompt": tokens.all_input,
        "native_tokens_completion": tokens.all_output,
        "native_tokens_reasoning": tokens.reasoning,
        "native_tokens_cached": tokens.cache_read,
        "native_tokens_completion_images": tokens.image_output,
        "num_media_prompt": opened.images,
        "total_cost": cost,
        "usage": cost,
        "is_byok": receipt.is_byok,
        "is_cached": receipt.is_cached,
        "is_sandbox": receipt.is_sandbox,
        "service_tier": closed.service_tier or None,
        "guardrails": [
            {"rule": each.rule, "name": each.name, "direction": each.direction, "action": each.action}
            for each in closed.guardrails
        ],
        "key_id": opened.key_id,
        "project_id": opened.project_id,
        "receipt": _exact(receipt),
    }


def usd_number(nanos: int) -> orjson.Fragment:
    """An amount in USD as a JSON number with all of its nine places."""
    return orjson.Fragment(format_usd(nanos))


def _exact(receipt: Receipt) -> dict[str, Any]:
    closed = receipt.closed
    return {
        "currency": "USD",
        "price": None if receipt.price is None else _price(receipt.price, receipt.arithmetic),
        **_arithmetic(receipt.arithmetic),
        "cost": format_usd(closed.cost_nanos),
        "charged": format_usd(receipt.charged_nanos),
        "byok": _byok(receipt),
        "cache": _cache(receipt),
        "estimated": closed.estimated,
        "rule": {"id": receipt.rule.value, "description": receipt.rule_words},
        "attempts": [_attempt(attempt) for attempt in receipt.attempts],
        "reratings": [_rerated(rerated) for rerated in receipt.reratings],
        "charged_after_reratings": format_usd(receipt.standing_nanos),
        "hold": _usd_or_none(receipt.hold_nanos),
        "balance_before": _usd_or_none(receipt.balance_before_nanos),
        "balance_after": _usd_or_none(receipt.balance_after_nanos),
    }


def _byok(receipt: Receipt) -> dict[str, Any] | None:
    if not receipt.is_byok:
        return None
    return {"fee_percent": percent_of(receipt.fee_ppm or 0), "fee": format_usd(receipt.charged_nanos)}


def _cache(receipt: Receipt) -> dict[str, Any] | None:
    hit = receipt.closed.opened.cache_hit
    if hit is None:
        return None
    return {"share_percent": percent_of(hit.share_ppm), "saved": format_usd(receipt.saved_nanos)}


def _price(price: Price, arithmetic: Arithmetic | None) -> dict[str, Any]:
    variant = arithmetic.variant if arithmetic else None
    return {
        "version": price.version_id,
        "starts_at": _moment(datetime.fromtimestamp(price.starts_at, UTC)),
        "variant": None
        if variant is None
        else {
            "min_input_tokens": variant.min_input_tokens,
            "service_tier": variant.service_tier or None,
            "window_utc": _window(variant.from_minute, variant.until_minute) if variant.has_window else None,
        },
    }


def _arithmetic(arithmetic: Arithmetic | None) -> dict[str, Any]:
    if arithmetic is None:
        return dict.fromkeys(_OF_PRICES)
    return {
        "lines": [_line(line) for line in arithmetic.lines],
        "discounts": [
            {"rule_id": each.rule_id or None, "description": each.words, "amount": exact_usd(each.exact_femtos)}
            for each in arithmetic.discounts
        ],
        "sum": exact_usd(arithmetic.exact_femtos),
        "rounding": exact_usd(arithmetic.rounding_femtos),
        "overage_not_billed": format_usd(arithmetic.overage_nanos),
        "correction": format_usd(arithmetic.correction_nanos),
    }


def _line(line: ReceiptLine) -> dict[str, Any]:
    return {
        "item": f"{line.item}_tokens" if line.is_tokens else line.item,
        "quantity": line.quantity,
        "unit_price": format_usd(line.unit_nanos),
        "per": TOKENS_PER_PRICE_UNIT if line.is_tokens else 1,
        "amount": exact_usd(line.exact_femtos),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "model": attempt.model,
        "started_ms": attempt.started_ms,
        "duration_ms": attempt.duration_ms,
        "status": attempt.outcome.value,
        "http_status": attempt.http_status,
        "error_code": attempt.error_code or None,
        "paid_by": attempt.paid_by.value,
        "is_byok": attempt.is_byok,
        "cost": format_usd(attempt.cost_nanos),
    }


def _rerated(rerated: Rerated) -> dict[str, Any]:
    return {
        "id": rerated.rerating_id,
        "reason": rerated.reason,
        "created_at": _moment(rerated.created_at),
        "amount": format_usd(rerated.delta_nanos),
        "overage_not_billed": format_usd(rerated.overage_nanos),
    }


def exact_usd(femtos: int) -> str:
    """10^-15 USD as decimal text with all fifteen places."""
    sign = "-" if femtos < 0 else ""
    whole, fraction = divmod(abs(femtos), 10**_DECIMALS)
    return f"{sign}{whole}.{fraction:0{_DECIMALS}d}"


def _usd_or_none(nanos: int | None) -> str | None:
    return None if nanos is None else format_usd(nanos)


def _window(start: int, end: int) -> str:
    return f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}"


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
