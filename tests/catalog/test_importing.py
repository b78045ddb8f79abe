"""Importing and exporting: what a document does to the database."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources

import pytest
from django.db import DatabaseError, connections, transaction

from apps.catalog import document as documents
from apps.catalog import models as tables
from apps.catalog.credentials import open_credential, store_credential
from apps.catalog.document import (
    CatalogDocument,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    RouteEntry,
    parse_catalog,
)
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import ImportReport, Tally, import_catalog
from apps.catalog.models import CatalogVersion, Model, PriceVersion, Provider, Route
from apps.catalog.snapshot import load_snapshot
from apps.core.errors import Conflict, InvalidInput
from apps.core.redis import changes_channel, sync_client

pytestmark = pytest.mark.django_db

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)
FEBRUARY = datetime(2026, 2, 1, tzinfo=UTC)

PROVIDER = ProviderEntry(id="local", name="Local", dialect="openai", base_url="http://127.0.0.1:9101/v1")
PRICE = PriceEntry(
    starts_at=JANUARY,
    input=Decimal("0.15"),
    output=Decimal("0.60"),
    cache_read=Decimal("0.075"),
    note="agreed",
)
MODEL = ModelEntry(
    id="bench-model",
    name="Bench model",
    vendor="Local",
    description="Two lines\nof text.",
    context_length=128000,
    max_output_tokens=16384,
    input_modalities=("text", "image"),
    tokenizer="o200k",
    routes=(RouteEntry(provider="local", upstream_model="gpt-4o-mini", weight=3),),
    prices=(PRICE,),
)
CATALOG = CatalogDocument(providers=(PROVIDER,), models=(MODEL,))


def catalog_of(model: ModelEntry = MODEL, *, provider: ProviderEntry | None = PROVIDER) -> CatalogDocument:
    return CatalogDocument(providers=(provider,) if provider else (), models=(model,))


def everything_stored() -> Iterator[object]:
    for table in (Provider, Model, Route, PriceVersion):
        yield list(table.objects.order_by("pk").values())


def test_an_import_into_an_empty_catalog_creates_everything() -> None:
    report = import_catalog(CATALOG, actor="someone")

    assert (report.providers, report.models, report.routes, report.prices) == (Tally(created=1),) * 4
    assert report.is_change
    model = Model.objects.get()
    assert (model.id, model.name, model.vendor, model.description) == (
        "bench-model",
        "Bench model",
        "Local",
        "Two lines\nof text.",
    )
    assert (model.context_length, model.max_output_tokens, model.tokenizer) == (128000, 16384, "o200k")
    assert (model.input_modalities, model.output_modalities, model.enabled) == (
        ["text", "image"],
        ["text"],
        True,
    )
    route = Route.objects.get()
    assert (route.model_id, route.provider_id, route.upstream_model, route.weight, route.enabled) == (
        "bench-model",
        "local",
        "gpt-4o-mini",
        3,
        True,
    )
    price = PriceVersion.objects.get()
    assert (price.starts_at, price.input, price.output, price.cache_read) == (
        JANUARY,
        Decimal("0.15"),
        Decimal("0.60"),
        Decimal("0.075"),
    )
    assert (price.cache_write, price.reasoning, price.note, price.created_by) == (
        None,
        None,
        "agreed",
        "someone",
    )


def test_a_second_import_changes_nothing_not_even_the_version() -> None:
    import_catalog(CATALOG)
    before, version = list(everything_stored()), CatalogVersion.objects.get().number

    report = import_catalog(CATALOG)

    assert (report.providers, report.models, report.routes, report.prices) == (Tally(unchanged=1),) * 4
    assert not report.is_change
    assert list(everything_stored()) == before
    assert CatalogVersion.objects.get().number == version


def test_exporting_gives_back_what_was_imported() -> None:
    import_catalog(CATALOG)

    assert export_catalog() == CATALOG
    assert parse_catalog(render_catalog(export_catalog())) == CATALOG


def test_an_export_can_be_imported_without_a_change() -> None:
    seeds = resources.files("apps.catalog").joinpath("seed")
    for name in ("models.yaml", "sandbox.yaml"):
        import_catalog(parse_catalog(seeds.joinpath(name).read_text()))

    report = import_catalog(parse_catalog(render_catalog(export_catalog())))

    assert not report.is_change
    assert report.models.unchanged == Model.objects.count() > 60


def test_changed_fields_are_updated_and_counted() -> None:
    import_catalog(CATALOG)
    created_at = Model.objects.get().created_at

    report = import_catalog(
        CatalogDocument(
            providers=(replace(PROVIDER, name="Renamed", enabled=False),),
            models=(replace(MODEL, context_length=200000, output_modalities=("text", "audio"), enabled=False),),
        )
    )

    assert (report.providers, report.models) == (Tally(updated=1), Tally(updated=1))
    assert (report.routes, report.prices) == (Tally(unchanged=1), Tally(unchanged=1))
    model = Model.objects.get()
    assert (model.context_length, model.output_modalities, model.enabled) == (
        200000,
        ["text", "audio"],
        False,
    )
    assert model.created_at == created_at
    assert (Provider.objects.get().name, Provider.objects.get().enabled) == ("Renamed", False)


def test_what_the_document_does_not_name_is_left_alone() -> None:
    import_catalog(CATALOG)
    other = replace(MODEL, id="other", routes=(RouteEntry(provider="elsewhere", upstream_model="x"),))

    import_catalog(catalog_of(other, provider=replace(PROVIDER, id="elsewhere", name="Elsewhere")))
    report = import_catalog(CatalogDocument())

    assert not report.is_change
    assert {entry.id for entry in export_catalog().models} == {"bench-model", "other"}
    assert export_catalog().models[0] == MODEL


def test_a_listed_model_gets_exactly_the_routes_of_the_document() -> None:
    two = (*MODEL.routes, RouteEntry(provider="local", upstream_model="gone"))
    import_catalog(catalog_of(replace(MODEL, routes=two)))
    kept = Route.objects.get(upstream_model="gpt-4o-mini").pk
    changed = (
        RouteEntry(provider="local", upstream_model="gpt-4o-mini", weight=9, enabled=False),
        RouteEntry(provider="local", upstream_model="new"),
    )

    report = import_catalog(catalog_of(replace(MODEL, routes=changed)))

    assert report.routes == Tally(created=1, updated=1, removed=1)
    assert export_catalog().models[0].routes == changed
    assert Route.objects.get(upstream_model="gpt-4o-mini").pk == kept


def test_a_new_start_adds_a_price_version_and_keeps_the_old_one() -> None:
    import_catalog(CATALOG)
    later = replace(PRICE, starts_at=FEBRUARY, input=Decimal("0.30"), note="")

    report = import_catalog(catalog_of(replace(MODEL, prices=(later,))))

    assert report.prices == Tally(created=1)
    assert export_catalog().models[0].prices == (PRICE, later)
    assert [price.input for price in load_snapshot().models["bench-model"].prices] == [
        300_000_000,
        150_000_000,
    ]


@pytest.mark.parametrize(
    "changed",
    [
        replace(PRICE, input=Decimal("0.150000001")),
        replace(PRICE, cache_read=None),
        replace(PRICE, reasoning=Decimal(1)),
    ],
)
def test_other_numbers_for_a_stored_price_are_refused_and_nothing_changes(changed: PriceEntry) -> None:
    import_catalog(CATALOG)
    before = list(everything_stored())
    renamed = replace(MODEL, name="Renamed", routes=(), prices=(changed,))

    with pytest.raises(Conflict) as caught:
        import_catalog(catalog_of(renamed, provider=replace(PROVIDER, name="Renamed")))

    assert list(everything_stored()) == before
    assert caught.value.message.startswith(
        "bench-model: the price from 2026-01-01T00:00:00Z is stored as input 0.15, output 0.6, "
        "cache_read 0.075, the document says input 0.15"
    )
    assert "never edited" in caught.value.message


def test_every_price_in_conflict_is_named() -> None:
    second = replace(MODEL, id="second")
    import_catalog(CatalogDocument(providers=(PROVIDER,), models=(MODEL, second)))
    dearer = (replace(PRICE, output=Decimal(7)),)

    with pytest.raises(Conflict) as caught:
        import_catalog(CatalogDocument(models=(replace(MODEL, prices=dearer), replace(second, prices=dearer))))

    assert [line.partition(":")[0] for line in caught.value.message.splitlines()] == ["bench-model", "second"]


def test_the_same_numbers_with_another_note_or_more_zeros_are_the_same_price() -> None:
    import_catalog(CATALOG)
    same = replace(PRICE, input=Decimal("0.150000000"), note="another note")

    assert import_catalog(catalog_of(replace(MODEL, prices=(same,)))).prices == Tally(unchanged=1)
    assert PriceVersion.objects.get().note == "agreed"


def test_a_stored_price_cannot_be_edited_behind_the_import() -> None:
    import_catalog(CATALOG)

    with pytest.raises(DatabaseError, match="never edited"), transaction.atomic():
        PriceVersion.objects.update(input=Decimal(1))


def test_an_api_key_is_sealed_and_a_second_import_leaves_it() -> None:
    with_key = replace(PROVIDER, api_key="sk-very-secret")
    import_catalog(catalog_of(provider=with_key))
    sealed = Provider.objects.get().credential

    assert import_catalog(catalog_of(provider=with_key)).providers == Tally(unchanged=1)
    assert Provider.objects.get().credential == sealed
    assert "sk-very-secret" not in sealed
    assert open_credential(Provider.objects.get()) == "sk-very-secret"
    assert "sk-very-secret" not in repr(export_catalog()) + render_catalog(export_catalog())


def test_another_api_key_replaces_the_stored_one() -> None:
    import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-old")))

    assert import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-new"))).providers == Tally(updated=1)
    assert open_credential(Provider.objects.get()) == "sk-new"


def test_a_document_without_api_key_keeps_the_stored_one() -> None:
    import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-kept")))

    import_catalog(catalog_of(provider=replace(PROVIDER, name="Renamed", base_url="http://127.0.0.1:9101/v2")))

    assert open_credential(Provider.objects.get()) == "sk-kept"


@pytest.mark.parametrize(
    "base_url", ["http://127.0.0.1:9102/v1", "https://127.0.0.1:9101/v1", "http://evil.example/v1"]
)
def test_a_move_to_another_host_drops_the_stored_api_key(base_url: str) -> None:
    import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-bound")))

    report = import_catalog(catalog_of(provider=replace(PROVIDER, base_url=base_url)))

    assert Provider.objects.get().credential == ""
    assert report.notes == ["provider local moved to another host: its stored API key was dropped"]


def test_a_move_to_another_host_with_a_key_stores_that_key() -> None:
    import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-old")))

    moved = replace(PROVIDER, base_url="https://other.example/v1", api_key="sk-old")
    report = import_catalog(catalog_of(provider=moved))

    assert report.notes == []
    assert open_credential(Provider.objects.get()) == "sk-old"


def test_a_stored_key_that_cannot_be_opened_is_replaced() -> None:
    import_catalog(CATALOG)
    provider = Provider.objects.get()
    store_credential(provider, "sk-lost")
    provider.credential = "gone" + provider.credential
    provider.save()

    import_catalog(catalog_of(provider=replace(PROVIDER, api_key="sk-new")))

    assert open_credential(Provider.objects.get()) == "sk-new"


def test_a_route_to_a_provider_that_does_not_exist_is_refused_and_nothing_is_created() -> None:
    with pytest.raises(InvalidInput, match="no such provider: local"):
        import_catalog(catalog_of(provider=None))

    assert not any(everything_stored())


def test_a_model_may_use_a_provider_that_is_stored_already() -> None:
    import_catalog(CatalogDocument(providers=(PROVIDER,)))

    assert import_catalog(catalog_of(provider=None)).routes == Tally(created=1)


def test_gateways_offer_the_imported_model_at_the_next_version() -> None:
    import_catalog(CatalogDocument(providers=(PROVIDER,)))
    version = CatalogVersion.objects.get().number

    import_catalog(CATALOG)

    snapshot = load_snapshot()
    assert snapshot.version > version
    offered = snapshot.models["bench-model"]
    assert [target.upstream_model for target in offered.targets] == ["gpt-4o-mini"]
    assert offered.input_modalities == ("text", "image")


def test_a_change_is_announced_once_it_is_committed(
    django_capture_on_commit_callbacks: Callable[..., AbstractContextManager[list[Callable[[], None]]]],
) -> None:
    client = sync_client()
    channel = client.pubsub()  # type: ignore[no-untyped-call]  # redis-py annotates its class only
    with channel:
        channel.subscribe(changes_channel(client))
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        with django_capture_on_commit_callbacks(execute=True):
            import_catalog(CATALOG)
            import_catalog(CATALOG)
        message = channel.get_message(timeout=5)
        second = channel.get_message(timeout=0.05)
    client.close()

    assert message is not None
    assert message["data"] == b"catalog"
    assert second is None


@pytest.mark.django_db(transaction=True)
def test_two_imports_at_once_come_one_after_the_other() -> None:
    reports: list[ImportReport] = []

    def import_again() -> None:
        try:
            reports.append(import_catalog(CATALOG))
        finally:
            connections.close_all()

    import_catalog(CatalogDocument())
    second = threading.Thread(target=import_again)
    with transaction.atomic():
        import_catalog(CATALOG)
        second.start()
        second.join(timeout=0.3)
        assert second.is_alive()
    second.join(timeout=10)

    assert [report.is_change for report in reports] == [False]


def test_document_and_tables_know_the_same_words() -> None:
    assert list(documents.MODALITIES) == tables.MODALITIES
    assert list(documents.OUTPUT_MODALITIES) == tables.OUTPUT_MODALITIES
    assert list(documents.DIALECTS) == tables.Dialect.values
