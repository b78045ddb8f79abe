"""Options of providers: checked for their dialect, kept, exported, and given to gateways with every default."""

import pytest

from apps.catalog.dialects import OPTIONS, option_problems, with_defaults
from apps.catalog.document import CatalogDocumentError, parse_catalog
from apps.catalog.document_rendering import render_catalog
from apps.catalog.exporting import export_catalog
from apps.catalog.importing import import_catalog
from apps.catalog.models import Provider
from apps.catalog.snapshot import load_snapshot

DOCUMENT = """
providers:
  - {id: plain, dialect: openai, base_url: "https://plain.example/v1"}
  - {id: azure, dialect: azure, base_url: "https://acme.openai.azure.com", options: {api_version: 2024-10-21}}
  - {id: claude, dialect: anthropic, base_url: "https://api.anthropic.com/v1"}
  - id: aws
    dialect: bedrock
    base_url: "https://bedrock-runtime.eu-central-1.amazonaws.com"
    options: {region: eu-central-1, auth: bearer}
models:
  - id: all
    context_length: 100
    max_output_tokens: 10
    routes:
      - {provider: plain, upstream_model: x}
      - {provider: azure, upstream_model: my-deployment}
      - {provider: claude, upstream_model: x}
      - {provider: aws, upstream_model: x}
    prices: [{from: "2026-01-01T00:00:00Z", input: "1", output: "1"}]
"""


@pytest.mark.django_db
def test_options_reach_the_gateway_with_their_defaults_and_come_out_as_they_were_written() -> None:
    import_catalog(parse_catalog(DOCUMENT, source="test"))
    assert {target.provider: target.options for target in load_snapshot().models["all"].targets} == {
        "plain": {"completions": "chat", "custom_tools": "auto", "tools": "", "max_tool_calls": "8"},
        "azure": {"api_version": "2024-10-21", "auth": "api-key", "cloud": "public"},
        "claude": {"version": "2023-06-01", "beta": "", "thinking": "auto", "tools": "", "max_tool_calls": "8"},
        "aws": {"region": "eu-central-1", "auth": "bearer", "role_arn": ""},
    }
    exported = export_catalog()
    assert {entry.id: entry.options for entry in exported.providers} == {
        "plain": {},
        "azure": {"api_version": "2024-10-21"},
        "claude": {},
        "aws": {"region": "eu-central-1", "auth": "bearer"},
    }
    rendered = render_catalog(exported)
    assert parse_catalog(rendered, source="again") == exported
    assert not import_catalog(exported).is_change
    changed = import_catalog(parse_catalog(DOCUMENT.replace("2024-10-21", "v1"), source="test"))
    assert changed.providers.updated == 1
    assert Provider.objects.get(pk="azure").options == {"api_version": "v1"}


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        (
            "dialect: bedrock",
            "3: providers[0].options.region: is required for the dialect bedrock: an AWS region such as eu-central-1",
        ),
        (
            "dialect: bedrock\n    options:\n      region: Frankfurt",
            '6: providers[0].options.region: must be an AWS region such as eu-central-1; got "Frankfurt"',
        ),
        (
            "dialect: azure\n    options:\n      auth: api-key\n      version: 3",
            "7: providers[0].options.version: is no option of the dialect azure (known: api_version, auth, cloud)",
        ),
        (
            "dialect: openai\n    options: {region: eu-central-1}",
            "5: providers[0].options.region: is no option of the dialect openai "
            "(known: completions, custom_tools, tools, max_tool_calls)",
        ),
        ("dialect: azure\n    options: [auth]", "5: providers[0].options: must be a mapping; got a list"),
        (
            "dialect: azure\n    options: {auth: [entra]}",
            "5: providers[0].options.auth: must be a single value; got a list",
        ),
        (
            "dialect: azure\n    options:\n      auth: entra\n      auth: entra",
            "7: providers[0].options.auth: stands there already, on line 6",
        ),
    ],
)
def test_options_that_do_not_fit_their_dialect_are_refused_with_their_line(provider: str, problem: str) -> None:
    text = f'\nproviders:\n  - id: p\n    {provider}\n    base_url: "https://host.example"\n'
    with pytest.raises(CatalogDocumentError) as caught:
        parse_catalog(text, source="test")
    assert str(caught.value) == f"test:{problem}"


def test_every_default_is_one_that_its_dialect_accepts() -> None:
    for dialect, known in OPTIONS.items():
        defaults = {name: value for name, value in with_defaults(dialect, {}).items() if value}
        problems = [name for name, _ in option_problems(dialect, defaults) if not known[name].required]
        assert problems == []


def test_a_dialect_that_is_not_known_here_has_no_options() -> None:
    assert with_defaults("of-tomorrow", {"x": "y"}) == {}
