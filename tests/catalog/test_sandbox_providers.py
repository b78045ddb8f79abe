"""Providers marked as a sandbox: in the document, in the database, and in what gateways learn of their models."""

import pytest

from apps.catalog.document import parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.snapshot import load_snapshot

DOCUMENT = """
providers:
  - {id: fake, dialect: openai, base_url: "http://127.0.0.1:9/v1", sandbox: true}
  - {id: real, dialect: openai, base_url: "http://127.0.0.1:8/v1"}
models:"""
MODEL = """
  - id: NAME
    context_length: 100
    max_output_tokens: 10
    routes: [ROUTES]
    prices: [{from: "2026-01-01T00:00:00Z", input: "1", output: "1"}]
"""


def document(**routes: str) -> str:
    models = (MODEL.replace("NAME", name).replace("ROUTES", wanted) for name, wanted in routes.items())
    return DOCUMENT + "".join(models)


@pytest.mark.django_db
def test_a_model_is_a_sandbox_model_when_all_of_its_routes_are() -> None:
    fake, real = "{provider: fake, upstream_model: x}", "{provider: real, upstream_model: x}"
    parsed = parse_catalog(document(free=fake, paid=real, both=f"{fake}, {real}"), source="test")
    import_catalog(parsed)
    models = load_snapshot().models
    assert {name: model.is_sandbox for name, model in models.items()} == {"free": True, "paid": False, "both": False}
    exported = export_catalog()
    assert {provider.id: provider.sandbox for provider in exported.providers} == {"fake": True, "real": False}
    assert parse_catalog(render_catalog(exported), source="again") == exported
    assert not import_catalog(exported).is_change
