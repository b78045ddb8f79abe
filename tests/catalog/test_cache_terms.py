"""A model's terms for the response cache: in the document, in the database, and for gateways."""

import pytest
from django.db import IntegrityError, transaction

from apps.catalog.contracts import NO_CACHE_TERMS, CacheTerms
from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Model
from apps.catalog.snapshot import load_snapshot

DOCUMENT = """
providers:
  - {id: p, dialect: openai, base_url: "http://127.0.0.1:9/v1"}
models:
  - id: kept
    context_length: 1000
    max_output_tokens: 10
    cache: {default: on, ttl_s: 3600, price_ppm: 100000}
    routes: [{provider: p, upstream_model: x}]
  - id: plain
    context_length: 1000
    max_output_tokens: 10
    routes: [{provider: p, upstream_model: x}]
"""


@pytest.mark.django_db
def test_the_terms_reach_the_gateway_and_come_out_again() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    snapshot = load_snapshot()
    assert snapshot.models["kept"].cache == CacheTerms(default=True, ttl_s=3_600, share_ppm=100_000)
    assert snapshot.models["plain"].cache == NO_CACHE_TERMS
    assert snapshot.cached_by_default == {"kept"}
    exported = export_catalog()
    rendered = render_catalog(exported)
    assert "cache: {default: on, ttl_s: 3600, price_ppm: 100000}" in rendered and rendered.count("cache:") == 1
    assert parse_catalog(rendered, source="again") == exported
    assert not import_catalog(exported).is_change
    assert import_catalog(parse_catalog(DOCUMENT.replace("default: on, ", ""), source="test")).models.updated == 1
    assert load_snapshot().cached_by_default == frozenset()


@pytest.mark.parametrize(
    "terms", ["{default: maybe}", "{ttl_s: 0}", "{ttl_s: 86401}", "{price_ppm: 1000001}", "{price_ppm: 0.5}", "on"]
)
def test_terms_without_a_meaning_are_refused_with_their_line(terms: str) -> None:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(DOCUMENT.replace("{default: on, ttl_s: 3600, price_ppm: 100000}", terms), source="test")
    assert "test:8: models[0].cache" in str(caught.value)


@pytest.mark.django_db
@pytest.mark.parametrize("terms", [{"cache_ttl_s": 0}, {"cache_share_ppm": -1}, {"cache_share_ppm": 1_000_001}])
def test_the_database_refuses_them_too(terms: dict[str, int]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Model.objects.create(id="m", name="M", vendor="V", context_length=9, max_output_tokens=9, **terms)
