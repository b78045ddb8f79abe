"""Keeping what vendors say they charged: a file once, and of every place the newest figures."""

import hashlib
from dataclasses import asdict, dataclass

from django.db import IntegrityError, transaction

from apps.billing.models import VendorCost, VendorReport
from apps.billing.models.reconciliation import FILE_NAME_LENGTH
from apps.billing.reconciliation.drift import warn_of_drift
from apps.billing.reconciliation.vendor_reports import Place, VendorFigures, parse_report
from apps.catalog.models import Provider
from apps.core.errors import Conflict, NotFound

FIGURES = ("cost_nanos", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens")


@dataclass(frozen=True)
class ReadFile:
    """A vendor's file that was understood. `figures` are empty when it was imported before."""

    provider_id: str
    digest: str
    figures: dict[Place, VendorFigures]


def import_report(provider_id: str, content: bytes, *, name: str, actor: str) -> tuple[VendorReport, bool]:
    """Read a vendor's file and keep it. Returns and raises what `keep_file` and `read_file` do."""
    return keep_file(read_file(provider_id, content), name=name, actor=actor)


def read_file(provider_id: str, content: bytes) -> ReadFile:
    """Understand a vendor's file; writes nothing.

    Raises NotFound for an unknown provider, Conflict for a file that belongs to another one, and InvalidInput for one
    that is not understood."""
    if not Provider.objects.filter(pk=provider_id).exists():
        raise NotFound(f"there is no provider with the id {provider_id!r}")
    digest = hashlib.sha256(content).hexdigest()
    return ReadFile(provider_id, digest, {} if _earlier(digest, provider_id) else parse_report(content))


def keep_file(file: ReadFile, *, name: str, actor: str) -> tuple[VendorReport, bool]:
    """Write down what a file says; returns its report, and whether it is new: the same file twice is one report.

    What a newer file says of the same day, model and line replaces what an older one said. Drift beyond the limit
    alerts the operator. Raises Conflict when it was imported for another provider since it was read."""
    if earlier := _earlier(file.digest, file.provider_id):
        return earlier, False
    report = VendorReport(
        digest=file.digest, provider_id=file.provider_id, name=name[-FILE_NAME_LENGTH:], imported_by=actor
    )
    try:
        with transaction.atomic():
            report = _write(report, file.figures)
            warn_of_drift(report)
    except IntegrityError:
        if earlier := _earlier(file.digest, file.provider_id):  # somebody else was faster
            return earlier, False
        raise
    return report, True


def _earlier(digest: str, provider_id: str) -> VendorReport | None:
    report: VendorReport | None = VendorReport.objects.filter(pk=digest).first()
    if report is not None and report.provider_id != provider_id:
        raise Conflict(f"this file was imported for the provider {report.provider_id} already")
    return report


def _write(report: VendorReport, figures: dict[Place, VendorFigures]) -> VendorReport:
    days = [day for day, _, _ in figures]
    report.first_day, report.last_day = min(days), max(days)
    known = VendorCost.objects.filter(provider_id=report.provider_id, day__range=(report.first_day, report.last_day))
    before = {
        (row.day, row.model, row.line_item): VendorFigures(*(getattr(row, name) for name in FIGURES)) for row in known
    }
    report.new_rows = sum(place not in before for place in figures)
    report.known_rows = sum(before.get(place) == said for place, said in figures.items())
    report.changed_rows = len(figures) - report.new_rows - report.known_rows
    report.save(force_insert=True)
    VendorCost.objects.bulk_create(
        [
            VendorCost(
                provider_id=report.provider_id, day=day, model=model, line_item=line, report=report, **asdict(said)
            )
            for (day, model, line), said in figures.items()
            if before.get((day, model, line)) != said
        ],
        update_conflicts=True,
        unique_fields=["provider", "day", "model", "line_item"],
        update_fields=[*FIGURES, "report"],
    )
    report.refresh_from_db()
    return report
