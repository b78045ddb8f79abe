"""What the console's tests work with: one row of everything that has a page, and ways to make more."""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django.db.models import Model as DatabaseModel

from apps.accounts.models import Organization, Plan, Project, User
from apps.billing.models import (
    Alert,
    CreditNote,
    Grant,
    Invoice,
    LedgerTransaction,
    Payment,
    PriceRule,
    ProviderKeyFee,
    ReconciliationRun,
    Rerating,
    SellerProfile,
    TaxRate,
    VendorReport,
    WebhookInbox,
)
from apps.catalog.models import Model, PriceVersion, Provider
from apps.core.ids import created_at, new_id
from apps.keys.models import ApiKey
from apps.policies.models import GuardrailRule, ProviderCredential
from apps.usage.models import ShadowRecord, UsageRecord, UsageReview, UsageRollup
from apps.usage.partitions import ensure_upcoming_partitions


@dataclass(frozen=True)
class Rows:
    """One row of every kind."""

    plan: Plan
    organization: Organization
    project: Project
    customer: User
    key: ApiKey
    provider: Provider
    model: Model
    price: PriceVersion
    record: UsageRecord
    grant: Grant
    transaction: LedgerTransaction
    payment: Payment
    event: WebhookInbox
    review: UsageReview
    run: ReconciliationRun
    vendor_report: VendorReport
    alert: Alert
    invoice: Invoice
    credit_note: CreditNote
    tax_rate: TaxRate
    seller: SellerProfile
    price_rule: PriceRule
    rerating: Rerating
    provider_key: ProviderCredential
    provider_key_fee: ProviderKeyFee
    guardrail: GuardrailRule
    shadow: ShadowRecord

    def of(self, kind: type[DatabaseModel]) -> Any:
        return {type(row): row for row in vars(self).values()}[kind]


def limit_fields(**fields: str) -> dict[str, str]:
    """What the parts of a form that set limits and the brake send when nothing is limited."""
    return {
        "requests_per_minute": "",
        "tokens_per_minute": "",
        "requests_per_day": "",
        "concurrency": "",
        "budget_nanos": "",
        "budget_period": "lifetime",
        "brake_nanos": "",
        "brake_minutes": "5",
        **fields,
    }


def add_price(model: Model, **fields: Any) -> PriceVersion:
    return PriceVersion.objects.create(
        **{
            "model": model,
            "input": Decimal("0.15"),
            "output": Decimal("0.60"),
            "cache_read": Decimal("0.075"),
            **fields,
        }
    )


def add_record(key: ApiKey, model: Model, price: PriceVersion, **fields: Any) -> UsageRecord:
    ensure_upcoming_partitions()
    request_id = new_id("req")
    moment = created_at(request_id)
    usual = {
        "organization_id": key.organization_id,
        "project_id": key.project_id,
        "key_id": key.pk,
        "model": model.pk,
        "provider": "local",
        "upstream_model": "small-upstream",
        "streamed": True,
        "status": "completed",
        "http_status": 200,
        "error_code": "",
        "finish_reason": "stop",
        "input_tokens": 1000,
        "cache_read_tokens": 0,
        "cache_write_tokens": 0,
        "output_tokens": 20,
        "reasoning_tokens": 0,
        "estimated": False,
        "price_version_id": price.pk,
        "cost_nanos": 162_000,
        "duration_ms": 1234,
        "first_byte_ms": 321,
        "recorded_at": datetime.now(UTC),
    }
    own = {"request_id": request_id, "day": moment.date(), "created_at": moment}
    return UsageRecord.objects.create(**{**usual, **own, **fields})


def add_review(record: UsageRecord, **fields: Any) -> UsageReview:
    names = {"organization_id": record.organization_id, "model": record.model, "provider": record.provider}
    usual = {**names, "reason": "completion_tokens is '3'"}
    return UsageReview.objects.create(request_id=record.request_id, **{**usual, **fields})


def price_fields(model: Model, **fields: str) -> dict[str, str]:
    """What the form of a new price version sends."""
    empty = {"starts_at_0": "", "starts_at_1": "", "cache_read": "", "cache_write": "", "reasoning": "", "note": ""}
    return {"model": model.pk, "input": "0.20", "output": "0.80", **empty, **fields}


def add_rollup(key: ApiKey, *, hour: datetime, **fields: Any) -> UsageRollup:
    counts = {
        "requests": 10,
        "failed_requests": 0,
        "estimated_requests": 0,
        "input_tokens": 100,
        "cache_read_tokens": 20,
        "cache_write_tokens": 3,
        "output_tokens": 50,
        "reasoning_tokens": 7,
        "cost_nanos": 1_000_000_000,
    }
    names = {"project_id": key.project_id, "key_id": key.pk, "model": "small", "provider": "local"}
    return UsageRollup.objects.create(hour=hour, organization_id=key.organization_id, **{**names, **counts, **fields})
