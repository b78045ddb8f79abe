"""The connection test: one GET for a provider's list of models, and what came back in one honest sentence."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import msgspec
from django.conf import settings

from apps.catalog.credentials import open_credential
from apps.catalog.dialects import with_defaults
from apps.catalog.models import Dialect, Provider
from apps.console.checked_transport import CheckedTransport
from apps.core.addresses import AddressRefused
from apps.core.errors import ConfigurationError

TIMEOUT_S = 5.0
MAX_BODY_BYTES = 4 << 20
_FORBIDDEN = (
    "The host leads to an address that is link-local, multicast or a cloud's metadata, or to a private network that"
    " CRUN_PRIVATE_UPSTREAMS does not allow."
)
SENDABLE_KEY = re.compile(r"[!-~]*")
"""What fits into a header: the client library would repeat anything else, readable, in an error message."""


@dataclass(frozen=True)
class ConnectionReport:
    """`level` is success, warning (reached, but odd) or error. Never contains the API key or the answer."""

    level: str
    headline: str
    detail: str = ""


class ListedModel(msgspec.Struct):
    """One entry of the provider's list."""

    id: str


class ModelList(msgspec.Struct):
    """What `GET /models` answers."""

    data: list[ListedModel]


class GeminiModel(msgspec.Struct):
    """One entry of Google's list: `models/gemini-...`."""

    name: str


class GeminiList(msgspec.Struct):
    """What Google's `GET /models` answers."""

    models: list[GeminiModel]


UNTESTED = {
    Dialect.BEDROCK: "Bedrock has no list of models at this address: send a request to one of its models instead.",
}
"""Dialects without anything harmless to ask for, and what to do instead."""


def asked_address(provider: Provider) -> str:
    """The address that the connection test asks; "" where there is no test."""
    is_tested = provider.dialect in _QUESTIONS and not _renews(provider)
    return _QUESTIONS[Dialect(provider.dialect)](provider, "").address if is_tested else ""


def untested(provider: Provider) -> str:
    """What to do where there is no test; "" where there is one, or no advice."""
    if _renews(provider):
        return "Its credential is got when a request needs it: send a request to one of its models instead."
    return UNTESTED.get(Dialect(provider.dialect), "") if provider.dialect in Dialect else ""


def check_connection(provider: Provider) -> ConnectionReport:
    """Ask the provider for its models, as saved, within about 5 s.

    As in the gateway, no proxy of the environment is used. No redirect is followed: the API key goes to the
    stored host only."""
    if not asked_address(provider):
        headline = "There is no connection test for this provider; nothing was sent."
        return ConnectionReport("warning", headline, untested(provider))
    try:
        api_key = open_credential(provider)
    except ConfigurationError as error:
        return ConnectionReport("error", "The stored API key cannot be opened.", error.message)
    if provider.api_key_env and not api_key:
        return ConnectionReport("error", f"{provider.api_key_env} is not set.", "Nothing was sent.")
    if not SENDABLE_KEY.fullmatch(api_key):
        return ConnectionReport("error", "The API key has characters that no header can carry.")
    started = time.monotonic()
    try:
        status, location, body = _fetch(provider, api_key, deadline=started + TIMEOUT_S)
    except AddressRefused:
        return ConnectionReport("error", "Nothing was sent: no request may go to this address.", _FORBIDDEN)
    except httpx.TimeoutException:
        return ConnectionReport("error", f"No answer within {TIMEOUT_S:.0f} seconds.", provider.base_url)
    except httpx.ConnectError as error:
        host = urlsplit(provider.base_url).netloc
        return ConnectionReport("error", f"No connection to {host}.", str(error))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return ConnectionReport("error", "The answer is not HTTP as it should be.", type(error).__name__)
    elapsed_ms = (time.monotonic() - started) * 1000
    if status == httpx.codes.OK:
        return _describe_list(provider, body, elapsed_ms)
    return _describe_refusal(provider, status, location, elapsed_ms=elapsed_ms)


def _fetch(provider: Provider, api_key: str, *, deadline: float) -> tuple[int, str, bytes]:
    question = _QUESTIONS[Dialect(provider.dialect)](provider, api_key)
    body = bytearray()
    with (
        httpx.Client(
            transport=CheckedTransport(settings.PRIVATE_UPSTREAMS), timeout=TIMEOUT_S, trust_env=False
        ) as client,
        client.stream(
            "GET",
            question.address,
            headers={"accept": "application/json", **question.headers},
            params=question.parameters,
        ) as response,
    ):
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                break
            if time.monotonic() > deadline:
                raise httpx.ReadTimeout("the answer drips")
        return response.status_code, response.headers.get("location", ""), bytes(body)


@dataclass(frozen=True)
class Question:
    """How a dialect is asked for its models."""

    address: str
    headers: dict[str, str]
    parameters: dict[str, str] | None = None


def _renews(provider: Provider) -> bool:
    """Whether its credential is one that renews itself, which only gateways get."""
    return with_defaults(provider.dialect, provider.options).get("auth") in ("entra-client", "role")


def _base(provider: Provider) -> str:
    return provider.base_url.rstrip("/")


def _bearer(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _ask_openai(provider: Provider, api_key: str) -> Question:
    return Question(f"{_base(provider)}/models", _bearer(api_key))


def _ask_anthropic(provider: Provider, api_key: str) -> Question:
    version = {"anthropic-version": with_defaults(provider.dialect, provider.options)["version"]}
    headers = {**version, "x-api-key": api_key} if api_key else version
    return Question(f"{_base(provider)}/models", headers, {"limit": "1000"})


def _ask_azure(provider: Provider, api_key: str) -> Question:
    options = with_defaults(provider.dialect, provider.options)
    headers = _bearer(api_key) if options["auth"] == "entra" else {"api-key": api_key}
    resource = _base(provider).removesuffix("/openai/v1").removesuffix("/openai")
    if options["api_version"] == "v1":
        return Question(f"{resource}/openai/v1/models", headers)
    return Question(f"{resource}/openai/models", headers, {"api-version": options["api_version"]})


def _ask_gemini(provider: Provider, api_key: str) -> Question:
    version = with_defaults(provider.dialect, provider.options)["api_version"]
    return Question(f"{_base(provider)}/{version}/models", {"x-goog-api-key": api_key}, {"pageSize": "1000"})


_QUESTIONS: dict[Dialect, Callable[[Provider, str], Question]] = {
    Dialect.OPENAI: _ask_openai,
    Dialect.OPENAI_RESPONSES: _ask_openai,
    Dialect.ANTHROPIC: _ask_anthropic,
    Dialect.AZURE: _ask_azure,
    Dialect.GEMINI: _ask_gemini,
}


def _listed(provider: Provider, body: bytes) -> set[str]:
    if provider.dialect == Dialect.GEMINI:
        models = msgspec.json.decode(body, type=GeminiList).models
        return {model.name.removeprefix("models/") for model in models}
    return {model.id for model in msgspec.json.decode(body, type=ModelList).data}


def _describe_list(provider: Provider, body: bytes, elapsed_ms: float) -> ConnectionReport:
    try:
        listed = _listed(provider, body)
    except msgspec.DecodeError:
        headline = f"Answered 200 in {elapsed_ms:.0f} ms, but not with a list of models."
        return ConnectionReport("warning", headline, _address_hint(provider))
    headline = f"Connected: {len(listed)} models listed in {elapsed_ms:.0f} ms."
    if provider.dialect == Dialect.AZURE:
        return ConnectionReport("success", headline, "Azure lists models, not deployments: routes were not compared.")
    wanted = set(provider.routes.filter(enabled=True).values_list("upstream_model", flat=True))
    missing = sorted(wanted - listed)
    if not missing:
        detail = "Every enabled route names a model of the list." if wanted else ""
        return ConnectionReport("success", headline, detail)
    names = ", ".join(missing[:10]) + (" …" if len(missing) > 10 else "")
    return ConnectionReport("warning", headline, f"Routes name models that are not in the list: {names}")


def _address_hint(provider: Provider) -> str:
    if provider.dialect in (Dialect.AZURE, Dialect.GEMINI):
        return "Does the base URL end with the host?"
    return "Does the base URL end with /v1?"


def _describe_refusal(provider: Provider, status: int, location: str, *, elapsed_ms: float) -> ConnectionReport:
    took = f"in {elapsed_ms:.0f} ms"
    if status in (401, 403):
        return ConnectionReport("error", f"The provider refuses the API key ({status} {took}).")
    if status == 404:
        hint = f"{_address_hint(provider)} Some providers have no such list and work all the same."
        return ConnectionReport("warning", f"Reached, but there is no /models here (404 {took}).", hint)
    if status == 429:
        return ConnectionReport("warning", f"Reached, but the provider limits us right now (429 {took}).")
    if 300 <= status < 400:
        target = urlsplit(location).netloc or "another address"
        hint = f"It points to {target}. Enter the final address: requests are not redirected."
        return ConnectionReport("error", f"The provider redirects ({status} {took}).", hint)
    return ConnectionReport("error", f"The provider answered {status} {took}.")
