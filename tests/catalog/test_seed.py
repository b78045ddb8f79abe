"""The shipped catalog: it parses without a warning, is whole, and its generator keeps its rules."""

from datetime import UTC, date, datetime
from decimal import Decimal
from importlib import resources
from typing import Any

import msgspec
import pytest
import yaml

from apps.billing.rating import cost_nanos
from apps.catalog.document import CatalogDocument, parse_catalog
from apps.catalog.price_entries import frozen_rates
from apps.gateway.metering.token_usage import read_usage
from apps.usage.contracts import TokenCounts
from deploy.build_price_seed import SELECTION, SeedError, build
from tests.factories import PRICE

VENDORS = {"OpenAI", "Anthropic", "Google", "Mistral AI", "DeepSeek", "xAI", "Meta", "Alibaba"}
AS_OF = date(2026, 11, 22)


def seed(name: str) -> CatalogDocument:
    return parse_catalog(resources.files("apps.catalog").joinpath("seed", name).read_text(), source=name)


def test_the_shipped_models_parse_without_a_warning() -> None:
    document = seed("models.yaml")

    assert document.warnings == ()
    assert 60 <= len(document.models) <= 85
    assert {model.vendor for model in document.models} >= VENDORS


def test_every_shipped_provider_names_a_variable_and_has_models() -> None:
    document = seed("models.yaml")

    routed = {route.provider for model in document.models for route in model.routes}
    assert {provider.id for provider in document.providers} == routed
    assert all(provider.api_key_env.endswith("_API_KEY") for provider in document.providers)
    assert all(provider.base_url.startswith("https://") for provider in document.providers)
    assert not any(provider.api_key for provider in document.providers)
    fields = {provider.id for provider in document.providers if provider.output_limit_field == "max_completion_tokens"}
    assert fields == {"openai"}
    own = {provider.id: provider.dialect for provider in document.providers if provider.dialect != "openai"}
    assert own == {"anthropic": "anthropic", "google": "gemini"}


def test_every_shipped_price_says_how_it_was_checked_and_is_in_force() -> None:
    for model in seed("models.yaml").models:
        assert model.prices[0].starts_at <= datetime(2026, 11, 22, tzinfo=UTC), model.id
        for price in model.prices:
            assert price.note.startswith(("verified: two public sources agree, ", "needs review: ")), model.id
            most = price.output if model.output_modalities == ("text",) else 1
            assert 0 < price.input <= most < 200, model.id
            assert price.cache_read is None or 0 < price.cache_read < price.input, model.id


def test_known_list_prices_came_through_exactly() -> None:
    models = {model.id: model for model in seed("models.yaml").models}

    mini = models["gpt-4o-mini"]
    assert (mini.context_length, mini.max_output_tokens) == (128000, 16384)
    assert mini.input_modalities == ("text", "image", "file")
    assert mini.image_tokens == 2_833 + 8 * 5_667
    [price] = mini.prices
    assert (price.input, price.output, price.cache_read, price.cache_write) == (
        Decimal("0.15"),
        Decimal("0.60"),
        Decimal("0.075"),
        None,
    )
    [price] = models["claude-sonnet-4-5"].prices
    assert (price.input, price.output, price.cache_read, price.cache_write) == (
        Decimal(3),
        Decimal(15),
        Decimal("0.30"),
        Decimal("3.75"),
    )


def test_embeddings_models_are_shipped_with_their_dimensions() -> None:
    found = {model.id: model for model in seed("models.yaml").models if model.output_modalities == ("embeddings",)}
    assert set(found) == {
        "text-embedding-3-large", "text-embedding-3-small", "gemini-embedding-001", "gemini-embedding-2",
        "mistral-embed", "codestral-embed-2505", "embed-v4.0",
    }  # fmt: skip
    assert all("numbers." in model.description and model.max_output_tokens == 1 for model in found.values())
    [price] = found["text-embedding-3-small"].prices
    assert (price.input, price.output) == (Decimal("0.02"), 0)
    dialects = {provider.id: provider.dialect for provider in seed("models.yaml").providers}
    assert {dialects[model.routes[0].provider] for model in found.values()} == {"openai"}  # who can be asked for them


def test_an_hour_in_the_cache_of_claude_costs_twice_its_input() -> None:
    claudes = [model for model in seed("models.yaml").models if model.vendor == "Anthropic"]
    assert claudes
    for model in claudes:
        assert [price.cache_write_1h for price in model.prices] == [2 * price.input for price in model.prices], model.id


def test_an_hour_that_anthropic_reports_is_charged_at_its_own_price() -> None:
    [listed] = next(model.prices for model in seed("models.yaml").models if model.id == "claude-sonnet-4-5")
    buckets = ("input", "output", "cache_read", "cache_write", "cache_write_1h")
    rates = frozen_rates({name: getattr(listed, name) for name in buckets})
    price = msgspec.structs.replace(PRICE, **rates)
    usage = {
        "input_tokens": 10, "output_tokens": 7, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 300,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200},
    }  # fmt: skip
    tokens = read_usage(usage, bound=10_000).tokens
    assert tokens == TokenCounts(input=10, cache_write=100, cache_write_1h=200, output=7)
    assert cost_nanos(tokens, price) == 10 * 3_000 + 100 * 3_750 + 200 * 6_000 + 7 * 15_000


def test_the_shipped_models_are_the_selected_ones() -> None:
    selection = yaml.safe_load(SELECTION.read_text())

    selected = [row["id"] for rows in selection["models"].values() for row in rows]
    assert [model.id for model in seed("models.yaml").models] == selected


def test_the_sandbox_works_without_a_credential() -> None:
    document = seed("sandbox.yaml")

    [provider] = document.providers
    assert (provider.id, provider.base_url, provider.api_key_env) == (
        "sandbox",
        "http://127.0.0.1:9101/v1",
        "",
    )
    assert [model.id for model in document.models] == [
        "sandbox-echo",
        "sandbox-tools",
        "sandbox-json",
        "sandbox-vision",
        "sandbox-embedding",
    ]
    assert document.warnings == ()
    for model in document.models:
        assert model.routes[0].upstream_model == model.id
    *chatting, embedding = document.models
    for model in chatting:
        assert (model.prices[0].input, model.prices[0].output) == (Decimal("0.15"), Decimal("0.60"))
    assert chatting[-1].input_modalities == ("text", "image")
    assert embedding.output_modalities == ("embeddings",)
    assert (embedding.prices[0].input, embedding.prices[0].output) == (Decimal("0.02"), Decimal(0))


# --- the generator, on lists made up here -------------------------------------------------------------------

SELECTED: dict[str, Any] = {
    "providers": [
        {
            "id": "acme",
            "name": "Acme",
            "base_url": "https://api.acme.example/v1",
            "api_key_env": "ACME_API_KEY",
            "genai": "acme-cloud",
            "litellm": "acme/",
        }
    ],
    "models": {"acme": [{"id": "one", "upstream": "Acme/One", "name": "One", "vendor": "Acme"}]},
}
PLAIN = "ModelPrice(input_mtok=Decimal('2'), output_mtok=Decimal('10'), cache_read_mtok=Decimal('0.2'))"


def genai(prices: str, *, context: str = "context_window=128000, ") -> str:
    """A list in the form of genai_prices/data.py."""
    return f"""
import datetime
providers: list[Provider] = [
    Provider(id='acme-cloud', name='Acme', api_pattern='x', models=[
        ModelInfo(id='Acme/One', match=ClauseEquals(equals='one'), {context}prices={prices}),
    ])
]
"""


def litellm(**fields: str) -> str:
    values = {
        "mode": '"chat"',
        "input_cost_per_token": "2e-06",
        "output_cost_per_token": "1e-05",
        "cache_read_input_token_cost": "2e-07",
        "max_input_tokens": "100000",
        "max_output_tokens": "8000",
        **fields,
    }
    body = ", ".join(f'"{name}": {value}' for name, value in values.items())
    return '{"acme/Acme/One": {' + body + "}}"


def built(prices: str = PLAIN, **fields: str) -> Any:
    [model] = build(genai(prices), litellm(**fields), selection=SELECTED, as_of=AS_OF).models
    return model


def test_agreement_makes_a_verified_price_from_the_first_of_the_month() -> None:
    model = built()

    [price] = model.prices
    assert (price.input, price.output, price.cache_read, price.cache_write) == (2, 10, Decimal("0.2"), None)
    assert price.starts_at == datetime(2026, 11, 1, tzinfo=UTC)
    assert price.note == "verified: two public sources agree, 2026-11"
    assert (model.id, model.routes[0].upstream_model, model.routes[0].provider) == ("one", "Acme/One", "acme")
    assert (model.context_length, model.max_output_tokens) == (128000, 8000)


def test_disagreement_takes_the_higher_price_and_names_both() -> None:
    [price] = built(input_cost_per_token="1e-06", output_cost_per_token="2e-05").prices

    assert (price.input, price.output, price.cache_read) == (2, 20, Decimal("0.2"))
    assert price.note == "needs review: sources disagree (input 2 / 1, output 10 / 20)"


def test_a_cache_price_of_one_list_only_is_a_disagreement_and_not_used() -> None:
    [price] = built(cache_read_input_token_cost="null").prices

    assert price.cache_read is None
    assert price.note == "needs review: sources disagree (cache_read 0.2 / 2)"


def test_steps_by_prompt_length_are_named() -> None:
    stepped = PLAIN.replace(
        "input_mtok=Decimal('2')",
        "input_mtok=TieredPrices(base=Decimal('2'), tiers=[Tier(start=50000, price=Decimal('4'))])",
    )

    assert built(stepped).prices[0].note.endswith("; dearer above 50000 input tokens")
    assert built(stepped).prices[0].input == 2
    assert built(input_cost_per_token_above_64k_tokens="4e-06").prices[0].note.endswith("above 64000 input tokens")
    assert "dearer" not in built(input_cost_per_token_above_256k_tokens="4e-06").prices[0].note


def test_prices_by_the_hour_count_at_the_dearest_hour() -> None:
    by_hour = f"""[
        ConditionalPrice(prices={PLAIN.replace("'2'", "'1'")}),
        ConditionalPrice(
            constraint=TimeOfDateConstraint(
                start_time=datetime.time(1, 0, tzinfo=datetime.UTC),
                end_time=datetime.time(4, 0, tzinfo=datetime.UTC),
            ),
            prices={PLAIN},
        ),
    ]"""

    [price] = built(by_hour).prices

    assert (price.input, price.note) == (
        2,
        "verified: two public sources agree, 2026-11; dearest hour of the day",
    )


def test_dated_prices_count_from_their_day_and_later_ones_are_scheduled() -> None:
    dated = f"""[
        ConditionalPrice(prices={PLAIN.replace("'2'", "'9'")}),
        ConditionalPrice(
            constraint=StartDateConstraint(start_date=datetime.date(2026, 11, 22)), prices={PLAIN}
        ),
        ConditionalPrice(
            constraint=StartDateConstraint(start_date=datetime.date(2026, 12, 1)),
            prices=ModelPrice(input_mtok=Decimal('4'), output_mtok=Decimal('20')),
        ),
    ]"""

    now, later = built(dated).prices

    assert (now.input, now.note) == (2, "verified: two public sources agree, 2026-11")
    assert (later.starts_at, later.input, later.output) == (datetime(2026, 12, 1, tzinfo=UTC), 4, 20)
    assert later.note == "needs review: announced for 2026-12-01, in the first source only"


def test_audio_is_left_out_where_it_is_priced_apart() -> None:
    takes_all = {"supports_vision": "true", "supports_audio_input": "true", "supports_pdf_input": "true"}

    assert built(**takes_all).input_modalities == ("text", "image", "audio", "file")
    assert built(**takes_all, input_cost_per_audio_token="3e-06").input_modalities == (
        "text",
        "image",
        "file",
    )
    priced = PLAIN.replace("ModelPrice(", "ModelPrice(input_audio_mtok=Decimal('3'), ")
    assert built(priced, **takes_all).input_modalities == ("text", "image", "file")


def test_an_announced_end_is_told() -> None:
    assert built(deprecation_date='"2027-01-20"').description == "Its vendor has announced its end for 2027-01-20."


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"deprecation_date": '"2026-11-22"'}, "one: its vendor ended it on 2026-11-22"),
        ({"mode": '"responses"'}, "one: not served on chat completions"),
        ({"output_cost_per_token": "null"}, "one: no price for input and output in both lists"),
        ({"max_output_tokens": "null"}, "one: no output limit"),
    ],
)
def test_models_that_cannot_be_sold_stop_the_generator(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(SeedError, match=reason):
        built(**fields)


def test_models_that_a_list_does_not_know_stop_the_generator() -> None:
    with pytest.raises(SeedError, match="one: not in the second list"):
        build(genai(PLAIN), "{}", selection=SELECTED, as_of=AS_OF)
    with pytest.raises(SeedError, match="one: not in the first list"):
        build("providers: list[Provider] = []", litellm(), selection=SELECTED, as_of=AS_OF)


@pytest.mark.parametrize("text", ["models = []", "providers: list[Provider] = [open('/etc/passwd')]"])
def test_code_that_is_no_list_of_prices_is_not_run(text: str) -> None:
    with pytest.raises(SeedError):
        build(text, litellm(), selection=SELECTED, as_of=AS_OF)
