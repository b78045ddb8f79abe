"""Reading a catalog document: what a good one becomes."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from apps.catalog.document import CatalogDocumentError, PriceEntry, ProviderEntry, RouteEntry, parse_catalog

PUBLISHED_EXAMPLE = """\
providers:
  - {id: local, dialect: openai, base_url: "http://127.0.0.1:9101/v1", api_key_env: LOCAL_KEY}   # a comment
models:
  - id: bench-model
    name: Bench model
    vendor: Local
    context_length: 128000
    max_output_tokens: 16384
    input_modalities: [text, image]
    routes: [{provider: local, upstream_model: gpt-4o-mini, weight: 1}]
    prices: [{from: "2026-01-01T00:00:00Z", input: "0.15", output: "0.60", cache_read: "0.075"}]
"""


def model_with(**lines: str) -> str:
    """A minimal document whose one model has these lines, in YAML as written."""
    fields = {"id": "m", "context_length": "1000", "max_output_tokens": "100", **lines}
    body = "\n".join(f"    {name}: {written}" for name, written in fields.items())
    return "providers: [{id: p, dialect: openai, base_url: http://localhost/v1}]\nmodels:\n  -\n" + body


def provider_with(**fields: str) -> str:
    values = {"id": "p", "dialect": "openai", "base_url": '"https://api.example.com/v1"', **fields}
    return "providers:\n  - {" + ", ".join(f"{name}: {written}" for name, written in values.items()) + "}\n"


def test_the_published_example_becomes_values() -> None:
    document = parse_catalog(PUBLISHED_EXAMPLE)

    assert document.providers == (
        ProviderEntry(
            id="local",
            name="local",
            dialect="openai",
            base_url="http://127.0.0.1:9101/v1",
            api_key_env="LOCAL_KEY",
        ),
    )
    [model] = document.models
    assert (model.id, model.name, model.vendor) == ("bench-model", "Bench model", "Local")
    assert (model.context_length, model.max_output_tokens) == (128000, 16384)
    assert (model.input_modalities, model.output_modalities) == (("text", "image"), ("text",))
    assert model.routes == (RouteEntry(provider="local", upstream_model="gpt-4o-mini"),)
    assert model.prices == (
        PriceEntry(
            starts_at=datetime(2026, 1, 1, tzinfo=UTC),
            input=Decimal("0.15"),
            output=Decimal("0.60"),
            cache_read=Decimal("0.075"),
        ),
    )
    assert document.warnings == ()


@pytest.mark.parametrize("written", ["0.1", '"0.1"', "'0.1'", "0.100000000"])
def test_a_price_is_exactly_the_decimal_that_was_written(written: str) -> None:
    price = f"[{{from: 2026-01-01T00:00:00Z, input: {written}, output: 3}}]"

    [entry] = parse_catalog(model_with(prices=price)).models[0].prices

    assert entry.input == Decimal("0.1")
    assert isinstance(entry.output, Decimal)
    assert entry.output == 3


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-01T00:00:00Z",
        "2026-03-01 01:30:00+01:30",
        "2026-02-28T19:00-05:00",
        "2026-03-01t00:00:00.000z",
    ],
)
def test_starts_of_prices_are_kept_in_utc(written: str) -> None:
    price = f'[{{from: "{written}", input: 1, output: 1}}]'

    [entry] = parse_catalog(model_with(prices=price)).models[0].prices

    assert entry.starts_at == datetime(2026, 3, 1, tzinfo=UTC)
    assert entry.starts_at.tzinfo is UTC


def test_words_that_yaml_takes_for_something_else_stay_words() -> None:
    model = parse_catalog(model_with(name="no", vendor="2026-01-01", tokenizer="1e3")).models[0]

    assert (model.name, model.vendor, model.tokenizer) == ("no", "2026-01-01", "1e3")


def test_names_default_to_the_id_and_empty_values_count_as_absent() -> None:
    model = parse_catalog(model_with(name="", description="~", routes="null")).models[0]

    assert (model.name, model.description, model.routes) == ("m", "", ())


def test_a_slash_at_the_end_of_a_base_url_is_dropped() -> None:
    document = parse_catalog(provider_with(base_url='"https://api.example.com/v1/"'))

    assert document.providers[0].base_url == "https://api.example.com/v1"


def test_an_api_key_is_kept_but_never_shown() -> None:
    [provider] = parse_catalog(provider_with(api_key="sk-very-secret")).providers

    assert provider.api_key == "sk-very-secret"
    assert "sk-very-secret" not in repr(provider)


def test_disabled_entries_are_read_as_disabled() -> None:
    assert not parse_catalog(provider_with(enabled="false")).providers[0].enabled
    assert not parse_catalog(model_with(enabled="false")).models[0].enabled
    route = "[{provider: p, upstream_model: x, enabled: false}]"
    assert not parse_catalog(model_with(routes=route)).models[0].routes[0].enabled


def test_routes_may_name_a_provider_that_is_known_already() -> None:
    text = model_with(routes="[{provider: stored, upstream_model: x}]")

    with pytest.raises(CatalogDocumentError, match="no provider of this catalog"):
        parse_catalog(text)
    assert parse_catalog(text, known_providers={"stored"}).models[0].routes[0].provider == "stored"


@pytest.mark.parametrize("text", ["{}", "models: []", "providers:\nmodels:\n", "# only\n--- {}\n..."])
def test_a_document_may_name_nothing(text: str) -> None:
    document = parse_catalog(text)

    assert (document.providers, document.models) == ((), ())


@pytest.mark.parametrize("model_id", ["gpt-4o-mini", "o3", "meta-llama/Llama-3.3:free", "x" * 128, "a_b.c"])
def test_public_ids_of_vendors_are_accepted(model_id: str) -> None:
    assert parse_catalog(model_with(id=model_id)).models[0].id == model_id


def test_warnings_name_models_that_cannot_work_yet() -> None:
    text = model_with(id="idle", max_output_tokens="2000") + "\n  - {id: fine, context_length: 9, max_output_tokens: 9,"
    text += "\n    routes: [{provider: p, upstream_model: x}],"
    text += "\n     prices: [{from: 2026-01-01T00:00:00Z, input: 0, output: 0}]}\n"

    warnings = parse_catalog(text, source="models.yaml").warnings

    assert warnings == (
        "models.yaml:4: models[0] (idle): has no price: requests are refused until it has one",
        "models.yaml:4: models[0] (idle): has no enabled route: nobody can call it",
        "models.yaml:4: models[0] (idle): max_output_tokens is above context_length: are they swapped?",
    )


def test_a_model_whose_only_route_is_disabled_is_warned_about() -> None:
    document = parse_catalog(model_with(routes="[{provider: p, upstream_model: x, enabled: false}]"))

    assert any("no enabled route" in warning for warning in document.warnings)
