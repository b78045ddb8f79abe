"""Refusing a catalog document: every problem at once, with its line and path, and no secret repeated."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.nodes import MAX_CHARACTERS, MAX_DEPTH


def model_with(**lines: str) -> str:
    """A minimal document whose one model has these lines, in YAML as written."""
    fields = {"id": "m", "context_length": "1000", "max_output_tokens": "100", **lines}
    body = "\n".join(f"    {name}: {written}" for name, written in fields.items())
    return "providers: [{id: p, dialect: openai, base_url: http://localhost/v1}]\nmodels:\n  -\n" + body


def provider_with(**fields: str) -> str:
    values = {"id": "p", "dialect": "openai", "base_url": '"https://api.example.com/v1"', **fields}
    return "providers:\n  - {" + ", ".join(f"{name}: {written}" for name, written in values.items()) + "}\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(text, source="models.yaml")
    assert str(caught.value).splitlines() == [f"models.yaml:{problem}" for problem in caught.value.problems]
    return [str(problem) for problem in caught.value.problems]


def the_problem_of(text: str) -> str:
    [problem] = problems_of(text)
    return problem


def price_with(**fields: str) -> str:
    values = {"from": "2026-01-01T00:00:00Z", "input": "1", "output": "1", **fields}
    return model_with(prices="[{" + ", ".join(f"{name}: {written}" for name, written in values.items()) + "}]")


def test_every_problem_is_reported_in_the_order_of_lines() -> None:
    text = """\
providers:
  - {id: local, dialect: opnai, base_url: "http://127.0.0.1:9101/v1"}
  - id: other
    dialect:
    nmae: x
models:
  - id: bench model
    context_length: -1
    max_output_tokens: 1e3
    routes: [{provider: locl, upstream_model: gpt, weight: 0}, 3]
    prices:
      - {from: "2026-01-01T00:00:00Z", input: abc, output: "-1"}
modles: 3
"""
    assert problems_of(text) == [
        "2: providers[0].dialect: must be one of openai, openai-responses, azure, anthropic, gemini, bedrock;"
        ' got "opnai"',
        "3: providers[1].base_url: is required",
        "4: providers[1].dialect: is required; got nothing",
        '5: providers[1].nmae: unknown key; did you mean "name"? '
        "(known: id, name, dialect, base_url, api_key_env, api_key, enabled, sandbox, output_limit_field, options, "
        "region, collects_data, zero_retention, maintenance)",
        "7: models[0].id: must be 1 to 128 letters, digits and . _ - / : with a letter or digit first; "
        'got "bench model"',
        '8: models[0].context_length: must be a whole number from 1 to 2147483647; got "-1"',
        '9: models[0].max_output_tokens: must be a whole number from 1 to 2147483647; got "1e3"',
        '10: models[0].routes[0].provider: "locl" is no provider of this catalog; did you mean "local"?',
        '10: models[0].routes[0].weight: must be a whole number from 1 to 1000; got "0"',
        "10: models[0].routes[1]: must be a mapping with provider, upstream_model, weight, canary_percent, "
        'shadow_percent, quantization, enabled, maintenance; got "3"',
        "12: models[0].prices[0].input: must be a decimal number of USD per million tokens, 0 or more, "
        'at most 9 decimals; got "abc"',
        "12: models[0].prices[0].output: must be a decimal number of USD per million tokens, 0 or more, "
        'at most 9 decimals; got "-1"',
        '13: modles: unknown key; did you mean "models"? (known: providers, models)',
    ]


@pytest.mark.parametrize(
    "written",
    [
        "abc",
        "-0.1",
        "1e-6",
        "0.1234567891",
        "123456789012",
        ".5",
        "5.",
        "1_000",
        "nan",
        "inf",
        "٣",
        "+1",
        "0x1",
    ],
)
def test_prices_that_are_no_decimal_amounts_are_refused(written: str) -> None:
    assert "prices[0].cache_write: must be a decimal number" in the_problem_of(price_with(cache_write=written))


@pytest.mark.parametrize("written", ['"2026-01-01T00:00:00"', "2026-01-01 10:00"])
def test_a_start_without_time_zone_is_refused_and_the_reason_given(written: str) -> None:
    problem = the_problem_of(price_with(**{"from": written}))

    assert "must name its time zone" in problem
    assert "depend on the reader" in problem


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-01",
        "today",
        "2026-13-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        '"0001-01-01T00:00:00+14:00"',
        "20260101T000000Z",
    ],
)
def test_a_start_that_is_no_moment_is_refused(written: str) -> None:
    assert "must be an ISO 8601 moment" in the_problem_of(price_with(**{"from": written}))


def test_two_prices_may_not_start_at_the_same_moment_in_any_time_zone() -> None:
    prices = """
      - {from: "2026-01-01T00:00:00Z", input: 1, output: 1}
      - {from: "2026-01-01T02:00:00+02:00", input: 2, output: 2}"""

    assert the_problem_of(model_with(prices=prices)) == (
        "9: models[0].prices[1]: the same from stands there already, on line 8"
    )


@pytest.mark.parametrize(
    "written",
    [
        "api.example.com/v1",
        "ftp://example.com",
        '"https://"',
        '"https://example.com/v1?key=1"',
        '"https://example.com/v1#x"',
        '"https://example.com:99999/v1"',
        '"https://[::1/v1"',
        '"https://exam ple.com/v1"',
        '"https://example.com\\\\@evil.example/v1"',
        '"' + "https://example.com/" + "x" * 500 + '"',
    ],
)
def test_base_urls_that_are_no_plain_addresses_are_refused(written: str) -> None:
    assert "providers[0].base_url: must be an http or https address" in the_problem_of(provider_with(base_url=written))


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": '"https://user:sk-secret@example.com/v1"'},
        {"api_key": '"sk-secret with a space"'},
        {"api_key_env": "sk-secret"},
        {"api_key": "[sk-secret]"},
    ],
)
def test_what_may_be_a_secret_is_not_repeated(fields: dict[str, str]) -> None:
    assert "sk-secret" not in the_problem_of(provider_with(**fields))


def test_a_provider_has_a_key_or_the_name_of_one() -> None:
    text = provider_with(api_key="sk-secret", api_key_env="NAME")

    assert the_problem_of(text) == "2: providers[0]: has both api_key and api_key_env; keep one"


@pytest.mark.parametrize("name", ["CRUN_SECRET_KEY", "crun_key_peppers", "DATABASE_URL", "REDIS_URL", "email_url"])
def test_secrets_of_the_installation_cannot_be_sent_to_a_provider(name: str) -> None:
    assert "belongs to this installation" in the_problem_of(provider_with(api_key_env=name))


@pytest.mark.parametrize("written", ["yes", "True", "1", "on"])
def test_only_true_and_false_are_true_and_false(written: str) -> None:
    assert the_problem_of(model_with(enabled=written)).endswith(f'must be true or false; got "{written}"')


@pytest.mark.parametrize("written", ["-x", '"a b"', '"a\\nb"', "é", '"' + "x" * 129 + '"', "gpt#4", "[a]"])
def test_ids_outside_the_character_set_are_refused(written: str) -> None:
    assert "models[0].id: must be" in the_problem_of(model_with(id=written))


@pytest.mark.parametrize("written", ["[]", "text", "[text, smell]", "[text, text]", "{text: 1}"])
def test_modalities_are_a_list_from_a_fixed_set(written: str) -> None:
    assert "models[0].input_modalities" in the_problem_of(model_with(input_modalities=written))


@pytest.mark.parametrize("written", ['"a\\nb"', '"a\\0b"', '"‮evil"', '" "', '"' + "x" * 201 + '"'])
def test_names_are_one_readable_line(written: str) -> None:
    assert "models[0].name: must be text on one line, 1 to 200 characters" in the_problem_of(model_with(name=written))


@pytest.mark.parametrize("field", ["id", "context_length", "max_output_tokens"])
def test_required_fields_are_required(field: str) -> None:
    text = model_with(id="m").replace(f"    {field}: ", "    enabled: true\n    # ", 1)

    assert the_problem_of(text).endswith(f"models[0].{field}: is required")


def test_ids_and_routes_may_stand_there_only_once() -> None:
    twice = (
        provider_with()
        + provider_with().removeprefix("providers:\n")
        + "models:\n"
        + 2
        * (
            "  - id: m\n    context_length: 9\n    max_output_tokens: 9\n"
            "    routes: [{provider: p, upstream_model: x}, {provider: p, upstream_model: x, weight: 2}]\n"
        )
    )
    assert problems_of(twice) == [
        "3: providers[1]: the same id stands there already, on line 2",
        "8: models[0].routes[1]: the same route stands there already, on line 8",
        "12: models[1].routes[1]: the same route stands there already, on line 12",
    ]
    good_models = re.sub(r", \{provider: p, upstream_model: x, weight: 2\}", "", twice)
    assert "9: models[1]: the same id stands there already, on line 5" in problems_of(good_models)


def test_a_key_may_stand_there_only_once() -> None:
    assert the_problem_of("models: []\nproviders: []\nmodels: []\n") == "3: models: stands there already, on line 1"


def test_a_provider_with_a_mistake_does_not_make_its_routes_look_wrong() -> None:
    text = model_with(routes="[{provider: p, upstream_model: x}]").replace("dialect: openai", "dialect: none")

    assert the_problem_of(text).startswith("1: providers[0].dialect")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1: is empty"),
        ("# nothing\n", "1: is empty"),
        ("a", '1: must be a mapping with providers, models; got "a"'),
        ("[]", "1: must be a mapping with providers, models; got a list"),
        ("models: 3", '1: models: must be a list; got "3"'),
        ("models:\n- \n", "2: models[0]: must be a mapping"),
        ("\nmodels: &anchor []\nproviders: *anchor", "2: anchors (&) and aliases (*) are not accepted"),
        ("models: !!python/object/apply:os.system [id]", "1: tags (!) are not accepted"),
        ("models: []\n---\nmodels: []", "3: a second YAML document starts here"),
        ("models:\n  - a: b: c", "2: is not valid YAML: mapping values are not allowed"),
        ("models: [", "is not valid YAML"),
        ("a: 'unclosed", "is not valid YAML"),
        ("\tmodels: []", "1: is not valid YAML"),
        ("models: []\n\x07", "2: has the character U+0007"),
        ("models: \ud800", "1: has the character U+D800"),
        ("{[a]: 1}", "1: a key must be a single word"),
        ("<<: {models: []}", "1: <<: unknown key"),
    ],
)
def test_what_is_no_catalog_is_refused_with_its_line(text: str, problem: str) -> None:
    assert problem in the_problem_of(text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_without_reading_on(opening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real_parse = yaml.parse

    def counted(text: str, **options: Any) -> Iterator[yaml.Event]:
        for event in real_parse(text, **options):
            read.append(event)
            yield event

    monkeypatch.setattr(yaml, "parse", counted)
    assert "nested deeper than 10 levels" in the_problem_of(opening * 20_000)
    assert MAX_DEPTH < len(read) < 4 * MAX_DEPTH


def test_a_document_beyond_the_size_cap_is_refused_unread() -> None:
    assert f"longer than {MAX_CHARACTERS} characters" in the_problem_of("#" * MAX_CHARACTERS + "\n")


def test_long_values_are_cut_in_messages() -> None:
    assert len(the_problem_of(model_with(id="é" * 5000))) < 300
