"""Windows of maintenance, and how long a model's streams may take to begin: document, database, snapshot, and back."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from apps.catalog.contracts import Maintenance
from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Provider, Route
from apps.catalog.snapshot import load_snapshot

START = datetime(2100, 1, 2, 22, 0, tzinfo=UTC)
END = START + timedelta(hours=4)
WINDOW = 'maintenance: {from: "2100-01-02T22:00:00Z", until: "2100-01-03T03:00:00+01:00", note: "New disks"}'
OVER = 'maintenance: {from: "2020-01-02T22:00:00Z", until: "2020-01-03T02:00:00Z"}'
DOCUMENT = f"""
providers:
  - {{id: a, dialect: openai, base_url: "http://127.0.0.1:9/v1", {WINDOW}}}
  - {{id: b, dialect: openai, base_url: "http://127.0.0.1:8/v1", {OVER}}}
models:
  - id: both
    context_length: 100
    max_output_tokens: 10
    first_byte_timeout_s: 180
    routes:
      - {{provider: a, upstream_model: x}}
      - {{provider: a, upstream_model: y, {WINDOW.replace("-02T22", "-01T22")}}}
      - {{provider: b, upstream_model: x}}
    prices: [{{from: "2026-01-01T00:00:00Z", input: "1", output: "1"}}]
"""


@pytest.mark.django_db
def test_a_window_reaches_the_gateway_and_comes_out_again() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    model = load_snapshot().models["both"]
    of_provider = Maintenance(START.timestamp(), (END).timestamp(), "New disks")
    earlier = Maintenance((START - timedelta(days=1)).timestamp(), END.timestamp(), "New disks")
    assert [target.maintenance for target in model.targets] == [(of_provider,), (earlier, of_provider), ()]
    assert (model.has_maintenance, model.first_byte_timeout_s) == (True, 180)
    exported = export_catalog()
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert (rendered.count("maintenance:"), rendered.count("first_byte_timeout_s: 180")) == (3, 1)
    assert not import_catalog(exported).is_change


@pytest.mark.django_db
def test_a_document_without_the_window_ends_it() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    bare = DOCUMENT.replace(WINDOW, "").replace(OVER, "").replace(WINDOW.replace("-02T22", "-01T22"), "")
    report = import_catalog(parse_catalog(bare, source="test"))
    assert (report.providers.updated, report.routes.updated) == (2, 1)
    assert not Provider.objects.filter(maintenance_from__isnull=False).exists()
    assert not load_snapshot().models["both"].has_maintenance


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (('note: "New disks"', "reason: x"), "3: providers[0].maintenance.reason: unknown key"),
        (("22:00:00Z", "22:00:00"), "3: providers[0].maintenance.from: must name its time zone"),
        (("2100-01-03", "2100-01-02"), "3: providers[0].maintenance: ends before it begins"),
        (("timeout_s: 180", "timeout_s: 0"), "9: models[0].first_byte_timeout_s: must be"),
    ],
)
def test_what_is_no_window_is_refused_with_its_line(changed: tuple[str, str], problem: str) -> None:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(DOCUMENT.replace(*changed), source="test")
    assert problem in str(caught.value)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "window",
    [
        {"maintenance_from": START},
        {"maintenance_until": END},
        {"maintenance_from": END, "maintenance_until": START},
        {"maintenance_from": START, "maintenance_until": START},
    ],
)
def test_the_database_keeps_no_half_windows(window: dict[str, datetime]) -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    empty = {"maintenance_from": None, "maintenance_until": None}
    for rows in (Provider.objects, Route.objects):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**(empty | window))
