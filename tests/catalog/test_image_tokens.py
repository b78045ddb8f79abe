"""What is held for an image: in the document, in the database, and for gateways."""

import importlib

import pytest
from django.db import connection

from apps.catalog.contracts import IMAGE_TOKENS
from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Model, Provider, Route
from apps.catalog.snapshot import load_snapshot

DOCUMENT = """
providers:
  - {id: p, dialect: openai, base_url: "http://127.0.0.1:9/v1"}
models:
  - id: dear
    context_length: 100000
    max_output_tokens: 10
    input_modalities: [text, image]
    image_tokens: 48169
    routes: [{provider: p, upstream_model: x}]
  - id: plain
    context_length: 100000
    max_output_tokens: 10
    routes: [{provider: p, upstream_model: x}]
"""


@pytest.mark.django_db
def test_the_figure_reaches_the_gateway_and_comes_out_again() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    models = load_snapshot().models
    assert (models["dear"].image_tokens, models["plain"].image_tokens) == (48_169, IMAGE_TOKENS)
    exported = export_catalog()
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert rendered.count("image_tokens: 48169") == rendered.count("image_tokens") == 1
    assert not import_catalog(exported).is_change


@pytest.mark.parametrize("figure", ["0", "-1", "1.5", "many", "99999999999"])
def test_another_figure_is_refused_with_its_line(figure: str) -> None:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(DOCUMENT.replace("48169", figure), source="test")
    assert "test:9: models[0].image_tokens: " in str(caught.value)


@pytest.mark.django_db
def test_models_of_earlier_versions_get_what_their_vendor_bills() -> None:
    upstreams = {
        "gpt-4o-mini": 48_169,
        "openai/GPT-4o-mini-2024-07-18": 48_169,
        "gpt-4o": IMAGE_TOKENS,
        "gpt-4o-mini-audio-preview": IMAGE_TOKENS,
        "my-gpt-4o-mini": IMAGE_TOKENS,
    }
    provider = Provider.objects.create(id="p", name="P", base_url="http://127.0.0.1:9/v1")
    for number, upstream in enumerate(upstreams):
        model = Model.objects.create(id=f"m{number}", name="M", vendor="V", context_length=9, max_output_tokens=9)
        Route.objects.create(model=model, provider=provider, upstream_model=upstream)
    with connection.cursor() as cursor:
        cursor.execute(importlib.import_module("apps.catalog.migrations.0008_image_tokens").RAISE)
    found = dict(Route.objects.values_list("upstream_model", "model__image_tokens"))
    assert found == upstreams
