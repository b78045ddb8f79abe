"""The field in which a provider is told where to end: in the document, in the database, and for gateways."""

import importlib
from typing import Any

import pytest
from django.db import connection

from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Provider
from apps.catalog.snapshot import load_snapshot

DOCUMENT = """
providers:
  - {id: old, dialect: openai, base_url: "http://127.0.0.1:9/v1"}
  - {id: new, dialect: openai, base_url: "http://127.0.0.1:8/v1", output_limit_field: max_completion_tokens}
models:
  - id: both
    context_length: 100
    max_output_tokens: 10
    routes: [{provider: old, upstream_model: x}, {provider: new, upstream_model: x}]
    prices: [{from: "2026-01-01T00:00:00Z", input: "1", output: "1"}]
"""


@pytest.mark.django_db
def test_the_field_reaches_the_gateway_and_comes_out_again() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    fields = {target.provider: target.output_limit_field for target in load_snapshot().models["both"].targets}
    assert fields == {"old": "max_tokens", "new": "max_completion_tokens"}
    exported = export_catalog()
    assert {entry.id: entry.output_limit_field for entry in exported.providers} == fields
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert rendered.count("output_limit_field") == 1
    assert not import_catalog(exported).is_change
    import_catalog(parse_catalog(DOCUMENT.replace("completion_tokens", "tokens"), source="test"))
    assert set(Provider.objects.values_list("output_limit_field", flat=True)) == {"max_tokens"}


def test_another_field_is_refused_with_its_line() -> None:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(DOCUMENT.replace("max_completion_tokens", "max_output"), source="test")
    assert "4: providers[1].output_limit_field: must be one of max_tokens, max_completion_tokens" in str(caught.value)


@pytest.mark.django_db
def test_providers_of_earlier_versions_get_the_field_that_their_vendor_asks_for() -> None:
    mark = importlib.import_module("apps.catalog.migrations.0006_output_limit_field").MARK
    addresses: dict[str, Any] = {
        "https://api.openai.com/v1": "max_completion_tokens",
        "https://API.OpenAI.com": "max_completion_tokens",
        "https://api.openai.com:443/v1": "max_completion_tokens",
        "https://acme.openai.azure.com/openai/v1": "max_completion_tokens",
        "https://api.openai.com.example/v1": "max_tokens",
        "https://proxy.example/api.openai.com/v1": "max_tokens",
        "https://proxy.example/https://api.openai.com/v1": "max_tokens",
        "https://api.groq.com/openai/v1": "max_tokens",
    }
    for index, address in enumerate(addresses):
        Provider.objects.create(id=f"p{index}", name="P", base_url=address)
    with connection.cursor() as cursor:
        cursor.execute(mark)
    assert dict(Provider.objects.values_list("base_url", "output_limit_field")) == addresses
