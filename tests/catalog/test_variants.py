"""Prices with media, flat parts and variants: read, refused with their line, rendered, stored for good, frozen."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from apps.catalog.contracts import BUCKETS
from apps.catalog.document import (
    CatalogDocument,
    CatalogDocumentError,
    ModelEntry,
    ProviderEntry,
    RouteEntry,
    parse_catalog,
)
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import Tally, import_catalog
from apps.catalog.models import PriceVersion
from apps.catalog.price_document import parse_variants, render_variants
from apps.catalog.price_entries import (
    AMOUNTS,
    CONDITIONS,
    PriceEntry,
    VariantEntry,
    variant_problem,
    variants_as_json,
    variants_from_json,
)
from apps.catalog.snapshot import load_snapshot
from apps.core.errors import Conflict

WRITTEN = """\
providers: [{id: p, dialect: openai, base_url: "http://127.0.0.1:9/v1"}]
models:
  - id: m
    context_length: 1000000
    max_output_tokens: 1000
    routes: [{provider: p, upstream_model: x}]
    prices:
      - from: "2026-01-01T00:00:00Z"
        input: "2.00"
        output: "8.00"
        audio_input: "32"
        per_request: "0.005"
        per_image: "0.001"
        variants:
          - {service_tier: priority, min_input_tokens: 200001, input: "7.00"}
          - {min_input_tokens: 200001, input: "4.00", output: "12.00"}
          - {utc_from: "22:00", utc_until: "06:00", input: "1.00", per_request: "0"}
"""
LONG = VariantEntry(min_input_tokens=200_001, input=Decimal("4.00"), output=Decimal("12.00"))
PRIORITY = VariantEntry(service_tier="priority", min_input_tokens=200_001, input=Decimal("7.00"))
NIGHT = VariantEntry(utc_from="22:00", utc_until="06:00", input=Decimal("1.00"), per_request=Decimal(0))
PRICE = PriceEntry(
    starts_at=datetime(2026, 1, 1, tzinfo=UTC),
    input=Decimal("2.00"),
    output=Decimal("8.00"),
    audio_input=Decimal(32),
    per_request=Decimal("0.005"),
    per_image=Decimal("0.001"),
    variants=(PRIORITY, LONG, NIGHT),
)


def catalog_of(*prices: PriceEntry) -> CatalogDocument:
    return CatalogDocument(
        providers=(ProviderEntry(id="p", name="P", dialect="openai", base_url="http://127.0.0.1:9/v1"),),
        models=(
            ModelEntry(
                id="m",
                name="M",
                context_length=1_000_000,
                max_output_tokens=1_000,
                routes=(RouteEntry(provider="p", upstream_model="x"),),
                prices=prices,
            ),
        ),
    )


def test_all_features_are_read() -> None:
    assert parse_catalog(WRITTEN).models[0].prices == (PRICE,)


def problems_of(*variants: str) -> list[str]:
    head, _, _ = WRITTEN.partition("          - {")
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(head + "".join(f"          - {variant}\n" for variant in variants))
    return [str(problem) for problem in caught.value.problems]


PLACE = "models[0].prices[0].variants"


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        (["{input: 1}"], "15: [0]: has no condition: give min_input_tokens, service_tier or utc_from and utc_until"),
        (["{min_input_tokens: 5}"], f"15: [0]: changes nothing: give at least one of {', '.join(AMOUNTS)}"),
        (["{utc_from: '01:00', input: 1}"], "15: [0]: needs both utc_from and utc_until"),
        (
            ["{utc_from: '01:00', utc_until: '01:00', input: 1}"],
            "15: [0]: has a window that is empty or the whole day: utc_from and utc_until are the same",
        ),
        (
            ["{min_input_tokens: 5, input: 1}", "{min_input_tokens: 9, input: 2}"],
            "16: [1]: can never apply: variant 1 fits every request that it fits, and the first that fits counts",
        ),
        (
            ["{service_tier: gold, input: 1}"],
            '15: [0].service_tier: must be one of batch, flex, priority; got "gold"',
        ),
        (
            ["{min_input_tokens: 0, input: 1}"],
            '15: [0].min_input_tokens: must be a whole number from 1 to 2147483647; got "0"',
        ),
        (
            ["{utc_from: '24:00', utc_until: '01:00', input: 1}"],
            '15: [0].utc_from: must be a time of day in UTC, as in "22:00"; got "24:00"',
        ),
        (
            ["{service_tier: flex, input: -1}"],
            "15: [0].input: must be a decimal number of USD per million tokens, 0 or more, at most 9 decimals; "
            'got "-1"',
        ),
        (
            ["{service_tier: flex, per_image: 1001}"],
            '15: [0].per_image: must be at most 1000 USD per image; got "1001"',
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(variants: list[str], expected: str) -> None:
    assert problems_of(*variants) == [expected.replace("[", f"{PLACE}[", 1)]


@pytest.mark.parametrize(
    ("earlier", "later", "is_refused"),
    [
        (LONG, PRIORITY, True),
        (PRIORITY, LONG, False),
        (LONG, replace(LONG, min_input_tokens=200_000), False),
        (NIGHT, replace(NIGHT, service_tier="flex"), True),
        (NIGHT, replace(NIGHT, utc_from="23:00", utc_until="05:59"), True),
        (NIGHT, replace(NIGHT, utc_until="06:01"), False),
        (NIGHT, LONG, False),
        (
            replace(NIGHT, utc_from="00:00", utc_until="12:00"),
            replace(NIGHT, utc_from="12:00", utc_until="00:00"),
            False,
        ),
    ],
)
def test_a_variant_behind_one_that_fits_all_its_requests_is_refused(
    earlier: VariantEntry, later: VariantEntry, is_refused: bool
) -> None:
    assert ("can never apply" in variant_problem(later, [earlier])) is is_refused


amounts = st.none() | st.decimals(0, 1_000, places=9, allow_nan=False)
entries = st.builds(
    VariantEntry,
    **dict.fromkeys(AMOUNTS, amounts),
    min_input_tokens=st.sampled_from([0, 1, 128_001]),
    service_tier=st.sampled_from(["", "batch", "flex", "priority"]),
    utc_from=st.just(""),
)
windows = st.sampled_from([("", ""), ("22:00", "06:00"), ("00:00", "00:01")])


@given(st.lists(st.tuples(entries, windows), max_size=5))
def test_what_is_rendered_or_stored_is_read_back_as_it_was(drawn: list[tuple[VariantEntry, tuple[str, str]]]) -> None:
    kept: tuple[VariantEntry, ...] = ()
    for entry, (start, end) in drawn:
        variant = replace(entry, utc_from=start, utc_until=end)
        if not variant_problem(variant, kept):
            kept += (variant,)
    assert variants_from_json(variants_as_json(kept)) == kept
    assert parse_variants(render_variants(kept)) == (kept, [])
    document = catalog_of(replace(PRICE, variants=kept))
    assert parse_catalog(render_catalog(document)) == document


def test_no_condition_is_forgotten_where_variants_are_written() -> None:
    assert set(CONDITIONS) | set(AMOUNTS) == set(VariantEntry.__dataclass_fields__)


@pytest.mark.django_db
def test_an_import_stores_everything_and_an_export_tells_it() -> None:
    import_catalog(catalog_of(PRICE))
    assert export_catalog() == catalog_of(PRICE)
    assert import_catalog(catalog_of(PRICE)).prices == Tally(unchanged=1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "changed",
    [
        replace(PRICE, variants=(LONG, NIGHT)),
        replace(PRICE, variants=(PRIORITY, replace(LONG, min_input_tokens=5), NIGHT)),
        replace(PRICE, per_image=None),
        replace(PRICE, image_output=Decimal(3)),
    ],
)
def test_other_features_for_a_stored_price_are_refused(changed: PriceEntry) -> None:
    import_catalog(catalog_of(PRICE))
    with pytest.raises(Conflict, match="from 200,001 input tokens, priority: input 7; "):
        import_catalog(catalog_of(changed))
    assert export_catalog() == catalog_of(PRICE)


@pytest.mark.django_db
def test_a_variant_cannot_be_edited() -> None:
    import_catalog(catalog_of(PRICE))
    with pytest.raises(IntegrityError, match="never edited"), transaction.atomic():
        PriceVersion.objects.update(variants=[])


@pytest.mark.django_db
def test_gateways_get_integers_with_everything_resolved() -> None:
    import_catalog(catalog_of(PRICE))
    price = load_snapshot().models["m"].prices[0]
    assert (price.of("audio_input"), price.of("image_input"), price.of("audio_output")) == (
        32_000_000_000, 2_000_000_000, 8_000_000_000,
    )  # fmt: skip
    assert (price.per_request, price.per_image) == (5_000_000, 1_000_000)
    priority, long, night = price.variants
    # a variant's own input counts for the cache too, which has no price of its own
    assert (long.input, long.cache_read, long.output, long.reasoning) == (4 * 10**9, 4 * 10**9, 12 * 10**9, 12 * 10**9)
    assert (long.of("audio_input"), long.per_request, long.min_input_tokens) == (32 * 10**9, 5_000_000, 200_001)
    assert (priority.output, priority.service_tier, priority.has_window) == (8 * 10**9, "priority", False)
    assert (night.per_request, night.window, night.has_window) == (0, ("22:00", "06:00"), True)
    assert all(isinstance(night.of(bucket), int) for bucket in BUCKETS)
