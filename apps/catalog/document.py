"""The catalog as a YAML document: frozen values, a validating parser that names lines, a stable renderer."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

from apps.catalog.base_urls import base_url_problem
from apps.catalog.cache_document import read_cache
from apps.catalog.contracts import (
    IMAGE_TOKENS,
    MAX_FIRST_BYTE_TIMEOUT_S,
    NO_CACHE_TERMS,
    OUTPUT_LIMIT_FIELDS,
    QUANTIZATIONS,
    UNSUPPORTED_POLICIES,
    CacheTerms,
)
from apps.catalog.dialects import DIALECTS, option_problems
from apps.catalog.maintenance_document import MaintenanceEntry, read_maintenance
from apps.catalog.nodes import (
    Findings,
    Items,
    Key,
    Node,
    Problem,
    Reader,
    Refusal,
    Scalar,
    Spot,
    SyntaxProblem,
    Table,
    compose,
    hint,
    integer,
    items,
    matching,
    one_of,
    read_table,
    scalar,
    shown,
    text,
    true_or_false,
    words,
)
from apps.catalog.price_document import read_prices
from apps.catalog.price_entries import PriceEntry
from apps.policies.data_rules import REGION_PATTERN

MODALITIES = ("text", "image", "audio", "file", "video")
OUTPUT_MODALITIES = (*MODALITIES, "embeddings")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_PROVIDER_ID = re.compile(r"[A-Za-z0-9_-]{1,60}")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
OWN_SECRET = re.compile(r"CRUN_.*|DATABASE_URL|REDIS_URL|EMAIL_URL|SECRET_KEY", re.IGNORECASE)
"""Variables with secrets of this installation: no provider may be sent one of them as its API key."""
_API_KEY = re.compile(r"[!-~]{1,4096}")
_UPSTREAM_MODEL = re.compile(r"[!-~]{1,200}")
_MAX_INTEGER = 2_147_483_647
_MAX_WEIGHT = 1_000
_MAX_DESCRIPTION_CHARACTERS = 10_000


@dataclass(frozen=True, kw_only=True)
class ProviderEntry:
    """An upstream account. Its API key is named by an environment variable or given; it is never rendered."""

    id: str
    name: str
    dialect: str
    base_url: str
    api_key_env: str = ""
    api_key: str = field(default="", repr=False)
    enabled: bool = True
    sandbox: bool = False
    """Sandbox keys may use it, and nobody is charged for that."""
    output_limit_field: str = OUTPUT_LIMIT_FIELDS[0]
    options: dict[str, str] = field(default_factory=dict, hash=False)
    """What else its dialect asks for: see `dialects.OPTIONS`."""
    maintenance: MaintenanceEntry | None = None
    region: str = ""
    collects_data: bool = True
    zero_retention: bool = False


@dataclass(frozen=True, kw_only=True)
class RouteEntry:
    """One way to serve a model; `weight` is 1 to 1000."""

    provider: str
    upstream_model: str
    weight: int = 1
    enabled: bool = True
    quantization: str = QUANTIZATIONS[0]
    canary_percent: int = 0
    shadow_percent: int = 0
    maintenance: MaintenanceEntry | None = None


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A model under its public id; lengths in tokens."""

    id: str
    name: str
    vendor: str = ""
    description: str = ""
    context_length: int
    max_output_tokens: int
    input_modalities: tuple[str, ...] = ("text",)
    output_modalities: tuple[str, ...] = ("text",)
    tokenizer: str = ""
    image_tokens: int = IMAGE_TOKENS
    unsupported_parameters: str = UNSUPPORTED_POLICIES[0]
    first_byte_timeout_s: int | None = None
    enabled: bool = True
    cache: CacheTerms = NO_CACHE_TERMS
    routes: tuple[RouteEntry, ...] = ()
    prices: tuple[PriceEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CatalogDocument:
    """Providers and models of one document; `warnings` are no part of what it says."""

    providers: tuple[ProviderEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)


class CatalogDocumentError(ValueError):
    """The document cannot be used; `problems` holds all of them in order of lines, `str` one a line."""

    def __init__(self, source: str, problems: Collection[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(f"{source}:{problem}" for problem in self.problems))


def parse_catalog(
    source_text: str, *, source: str = "catalog", known_providers: Collection[str] = ()
) -> CatalogDocument:
    """The document in `source_text`; `source` is the file's name for messages.

    Routes may name providers of the document or of `known_providers`. Raises CatalogDocumentError with every
    problem found."""
    try:
        root = compose(source_text)
    except SyntaxProblem as error:
        raise CatalogDocumentError(source, [error.problem]) from error
    findings = Findings()
    known = {*known_providers, *_provider_ids(root)}
    keys = {
        "providers": Key(items(_read_provider, identity=lambda entry: entry.id, described="id"), "providers"),
        "models": Key(items(_model_reader(known), identity=lambda entry: entry.id, described="id"), "models"),
    }
    values = read_table(Spot(root, "", findings), keys)
    if values is None:
        raise CatalogDocumentError(source, findings.problems)
    return CatalogDocument(**values, warnings=tuple(f"{source}:{warning}" for warning in findings.warnings))


def _provider_ids(root: Node) -> Iterator[str]:
    """Ids as written: a provider with another mistake in it must not make its routes look wrong too."""
    listed = root.get("providers") if isinstance(root, Table) else None
    for node in listed.nodes if isinstance(listed, Items) else ():
        written = node.get("id") if isinstance(node, Table) else None
        if isinstance(written, Scalar):
            yield written.text


def _read_provider(spot: Spot) -> ProviderEntry | None:
    values = read_table(spot, _PROVIDER_KEYS)
    if values is None:
        return None
    if "api_key" in values and "api_key_env" in values:
        spot.refuse("has both api_key and api_key_env; keep one")
        return None
    written: dict[str, Scalar] = values.pop("options", {})
    options = {name: node.text for name, node in written.items()}
    problems = list(option_problems(values["dialect"], options))
    for name, message in problems:
        node = written.get(name)
        got = f"; got {shown(node.text)}" if node is not None and message.startswith("must") else ""
        spot.key(f"options.{name}", node or spot.node).refuse(message + got)
    return None if problems else ProviderEntry(**{"name": values["id"], **values, "options": options})


def _model_reader(known_providers: Collection[str]) -> Reader:
    def provider(written: Scalar) -> str:
        if written.text not in known_providers:
            message = f"{shown(written.text)} is no provider of this catalog{hint(written.text, known_providers)}"
            raise Refusal(message, repeats_value=False)
        return written.text

    def read_route(spot: Spot) -> RouteEntry | None:
        values = read_table(spot, route_keys)
        return None if values is None else RouteEntry(**values)

    def read(spot: Spot) -> ModelEntry | None:
        values = read_table(spot, model_keys)
        if values is None:
            return None
        entry = ModelEntry(**{"name": values["id"], **values})
        _warn_about(entry, spot)
        return entry

    route_keys = {"provider": Key(scalar(provider), "provider", required=True), **_ROUTE_KEYS}
    routes = items(read_route, identity=lambda entry: (entry.provider, entry.upstream_model), described="route")
    model_keys = {**_MODEL_KEYS, "routes": Key(routes, "routes"), "prices": Key(read_prices, "prices")}
    return read


def _warn_about(entry: ModelEntry, spot: Spot) -> None:
    named = replace(spot, path=f"{spot.path} ({entry.id})")
    if not entry.prices:
        named.warn("has no price: requests are refused until it has one")
    if not any(route.enabled and not route.shadow_percent for route in entry.routes):
        named.warn("has no enabled route: nobody can call it")
    if entry.max_output_tokens > entry.context_length:
        named.warn("max_output_tokens is above context_length: are they swapped?")


def _base_url(written: Scalar) -> str:
    """The URL without slashes at its end."""
    address = written.text
    if problem := base_url_problem(address):
        raise Refusal(problem, repeats_value="@" not in address)
    return address.rstrip("/")


def _environment_name(written: Scalar) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(written.text):
        raise Refusal("must be the name of an environment variable, such as OPENAI_API_KEY", repeats_value=False)
    if OWN_SECRET.fullmatch(written.text):
        raise Refusal(
            f"{written.text} belongs to this installation; it would be sent to the provider",
            repeats_value=False,
        )
    return written.text


_read_modalities = items(
    scalar(one_of(MODALITIES)), identity=lambda name: name, described="modality", may_be_empty=False
)
_read_output_modalities = items(
    scalar(one_of(OUTPUT_MODALITIES)), identity=lambda name: name, described="modality", may_be_empty=False
)
_PROVIDER_KEYS = {
    "id": Key(
        scalar(matching(_PROVIDER_ID, "1 to 60 letters, digits, hyphens and underscores")),
        "id",
        required=True,
    ),
    "name": Key(scalar(text(100)), "name"),
    "dialect": Key(scalar(one_of(DIALECTS)), "dialect", required=True),
    "base_url": Key(scalar(_base_url), "base_url", required=True),
    "api_key_env": Key(scalar(_environment_name), "api_key_env"),
    "api_key": Key(
        scalar(matching(_API_KEY, "1 to 4096 printable ASCII characters without spaces", is_secret=True)),
        "api_key",
    ),
    "enabled": Key(scalar(true_or_false), "enabled"),
    "sandbox": Key(scalar(true_or_false), "sandbox"),
    "output_limit_field": Key(scalar(one_of(OUTPUT_LIMIT_FIELDS)), "output_limit_field"),
    "options": Key(words, "options"),
    "region": Key(
        scalar(matching(re.compile(REGION_PATTERN), "2 to 20 small letters, digits and hyphens, such as eu")), "region"
    ),
    "collects_data": Key(scalar(true_or_false), "collects_data"),
    "zero_retention": Key(scalar(true_or_false), "zero_retention"),
    "maintenance": Key(read_maintenance, "maintenance"),
}
_MODEL_KEYS = {
    "id": Key(
        scalar(matching(_MODEL_ID, "1 to 128 letters, digits and . _ - / : with a letter or digit first")),
        "id",
        required=True,
    ),
    "name": Key(scalar(text(200)), "name"),
    "vendor": Key(scalar(text(100, may_be_empty=True)), "vendor"),
    "description": Key(scalar(text(_MAX_DESCRIPTION_CHARACTERS, may_be_empty=True, has_lines=True)), "description"),
    "context_length": Key(scalar(integer(1, _MAX_INTEGER)), "context_length", required=True),
    "max_output_tokens": Key(scalar(integer(1, _MAX_INTEGER)), "max_output_tokens", required=True),
    "input_modalities": Key(_read_modalities, "input_modalities"),
    "output_modalities": Key(_read_output_modalities, "output_modalities"),
    "tokenizer": Key(scalar(text(50, may_be_empty=True)), "tokenizer"),
    "image_tokens": Key(scalar(integer(1, _MAX_INTEGER)), "image_tokens"),
    "unsupported_parameters": Key(scalar(one_of(UNSUPPORTED_POLICIES)), "unsupported_parameters"),
    "first_byte_timeout_s": Key(scalar(integer(1, MAX_FIRST_BYTE_TIMEOUT_S)), "first_byte_timeout_s"),
    "enabled": Key(scalar(true_or_false), "enabled"),
    "cache": Key(read_cache, "cache"),
}
_ROUTE_KEYS = {
    "upstream_model": Key(
        scalar(matching(_UPSTREAM_MODEL, "1 to 200 printable ASCII characters without spaces")),
        "upstream_model",
        required=True,
    ),
    "weight": Key(scalar(integer(1, _MAX_WEIGHT)), "weight"),
    "canary_percent": Key(scalar(integer(0, 100)), "canary_percent"),
    "shadow_percent": Key(scalar(integer(0, 100)), "shadow_percent"),
    "quantization": Key(scalar(one_of(QUANTIZATIONS)), "quantization"),
    "enabled": Key(scalar(true_or_false), "enabled"),
    "maintenance": Key(read_maintenance, "maintenance"),
}
