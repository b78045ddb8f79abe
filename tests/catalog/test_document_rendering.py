"""Rendering a catalog document: parsing what was rendered gives the same document."""

import string
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import yaml
from hypothesis import given
from hypothesis import strategies as st

from apps.catalog.contracts import IMAGE_TOKENS, QUANTIZATIONS, UNSUPPORTED_POLICIES
from apps.catalog.dialects import MAX_OPTION_CHARACTERS, OPTIONS, Option
from apps.catalog.document import (
    MODALITIES,
    OUTPUT_MODALITIES,
    CatalogDocument,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    RouteEntry,
    parse_catalog,
)
from apps.catalog.document_rendering import render_catalog
from apps.policies.data_rules import REGION_PATTERN

ASCII_VISIBLE = string.ascii_letters + string.digits + string.punctuation
line = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=50).filter(
    lambda text: bool(text.strip())
)
awkward_line = line | st.sampled_from(
    ["null", "~", "yes", "No", "true", "1.5", "- x", "a: b", "a #b", '"', "'", "{}", "\\", "é", "0"]
)
paragraph = st.just("") | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp"], exclude_characters="\ufeff")
    | st.sampled_from("\n\t"),
    max_size=80,
).filter(lambda text: bool(text.strip()))
amounts = st.decimals(min_value=0, max_value=Decimal(1_000_000), places=9)
moments = st.datetimes(
    min_value=datetime.fromisoformat("1900-01-01"),
    max_value=datetime.fromisoformat("2200-01-01"),
    timezones=st.just(UTC),
)
modalities = st.lists(st.sampled_from(MODALITIES), min_size=1, unique=True).map(tuple)
output_modalities = st.lists(st.sampled_from(OUTPUT_MODALITIES), min_size=1, unique=True).map(tuple)


def _option(option: Option) -> st.SearchStrategy[str]:
    return st.from_regex(option.pattern, fullmatch=True).filter(lambda text: len(text) <= MAX_OPTION_CHARACTERS)


dialects_with_options = st.one_of(
    st.tuples(
        st.just(dialect),
        st.fixed_dictionaries(
            {name: _option(option) for name, option in known.items() if option.required},
            optional={name: _option(option) for name, option in known.items() if not option.required},
        ),
    )
    for dialect, known in OPTIONS.items()
)
providers = st.builds(
    lambda spoken, **fields: ProviderEntry(dialect=spoken[0], options=spoken[1], **fields),
    dialects_with_options,
    id=st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=60),
    name=awkward_line,
    base_url=st.sampled_from(["http://127.0.0.1:9101/v1", "https://api.example.com", "http://[::1]:8080/x/v1"]),
    api_key_env=st.just("")
    | st.from_regex(r"\A[A-Za-z_][A-Z0-9_]{0,20}\Z").filter(lambda name: name[:4].upper() != "CRUN"),
    api_key=st.just(""),
    enabled=st.booleans(),
    region=st.just("") | st.from_regex(REGION_PATTERN, fullmatch=True, alphabet=string.ascii_lowercase + "-0123456789"),
    collects_data=st.booleans(),
    zero_retention=st.booleans(),
)
prices = st.builds(
    PriceEntry,
    starts_at=moments,
    input=amounts,
    output=amounts,
    cache_read=st.none() | amounts,
    cache_write=st.none() | amounts,
    reasoning=st.none() | amounts,
    note=st.just("") | awkward_line,
)


@st.composite
def documents(draw: st.DrawFn) -> CatalogDocument:
    listed = draw(st.lists(providers, max_size=3, unique_by=lambda entry: entry.id))
    routes = st.builds(
        RouteEntry,
        provider=st.sampled_from([entry.id for entry in listed] or ["none"]),
        upstream_model=st.text(ASCII_VISIBLE, min_size=1, max_size=40),
        weight=st.integers(1, 1000),
        quantization=st.sampled_from(QUANTIZATIONS),
        canary_percent=st.integers(0, 100),
        shadow_percent=st.integers(0, 100),
        enabled=st.booleans(),
    )
    models = st.builds(
        ModelEntry,
        id=st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\Z"),
        name=awkward_line,
        vendor=st.just("") | awkward_line,
        description=paragraph,
        context_length=st.integers(1, 2**31 - 1),
        max_output_tokens=st.integers(1, 2**31 - 1),
        input_modalities=modalities,
        output_modalities=output_modalities,
        tokenizer=st.just("") | awkward_line,
        image_tokens=st.just(IMAGE_TOKENS) | st.integers(1, 2**31 - 1),
        unsupported_parameters=st.sampled_from(UNSUPPORTED_POLICIES),
        enabled=st.booleans(),
        routes=st.lists(
            routes,
            max_size=2 if listed else 0,
            unique_by=lambda route: (route.provider, route.upstream_model),
        ).map(tuple),
        prices=st.lists(prices, max_size=2, unique_by=lambda price: price.starts_at).map(tuple),
    )
    return CatalogDocument(
        providers=tuple(listed),
        models=tuple(draw(st.lists(models, max_size=3, unique_by=lambda entry: entry.id))),
    )


@given(documents())
def test_parsing_what_was_rendered_gives_the_same_document(document: CatalogDocument) -> None:
    text = render_catalog(document)

    assert parse_catalog(text) == document
    assert render_catalog(parse_catalog(text)) == text


@given(documents())
def test_other_yaml_readers_see_the_same_words(document: CatalogDocument) -> None:
    read = yaml.safe_load(render_catalog(document))

    assert [entry["id"] for entry in read["models"]] == [entry.id for entry in document.models]
    assert [entry["name"] for entry in read["models"]] == [entry.name for entry in document.models]
    assert [entry.get("description", "") for entry in read["models"]] == [
        entry.description for entry in document.models
    ]
    for entry, model in zip(read["models"], document.models, strict=True):
        assert [Decimal(price["input"]) for price in entry["prices"]] == [price.input for price in model.prices]


def example() -> CatalogDocument:
    price = PriceEntry(
        starts_at=datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=1, minutes=30))),
        input=Decimal("0.150000000"),
        output=Decimal("3"),
        cache_read=Decimal("0.0750"),
        note="a: b",
    )
    return CatalogDocument(
        providers=(
            ProviderEntry(
                id="p",
                name="P",
                dialect="openai",
                base_url="https://api.example.com/v1",
                api_key="sk-very-secret",
            ),
        ),
        models=(
            ModelEntry(
                id="gpt-x",
                name="GPT X",
                context_length=100,
                max_output_tokens=10,
                routes=(RouteEntry(provider="p", upstream_model="x/y", enabled=False),),
                prices=(price,),
            ),
        ),
    )


def test_the_rendered_form_is_stable_and_readable() -> None:
    assert (
        render_catalog(example())
        == """\
# Prices are in USD per million tokens. API keys are not exported: name a variable with api_key_env.

providers:
  - id: p
    name: P
    dialect: openai
    base_url: "https://api.example.com/v1"
models:
  - id: gpt-x
    name: GPT X
    context_length: 100
    max_output_tokens: 10
    input_modalities: [text]
    output_modalities: [text]
    routes:
      - {provider: p, upstream_model: x/y, weight: 1, enabled: false}
    prices:
      - {from: "2026-01-01T00:00:00Z", input: "0.15", output: "3.00", cache_read: "0.075", note: "a: b"}
"""
    )


def test_api_keys_are_never_rendered() -> None:
    assert "sk-very-secret" not in render_catalog(example())


def test_an_empty_document_renders_as_one_that_parses() -> None:
    assert parse_catalog(render_catalog(CatalogDocument())) == CatalogDocument()


def test_the_heading_can_be_replaced() -> None:
    assert render_catalog(CatalogDocument(), heading="# Mine") == "# Mine\n\nproviders: []\nmodels: []\n"
