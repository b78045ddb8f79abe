"""What the error answers of all vendors have in common, and what our callers are told of them. Pure."""

import re
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from apps.catalog.contracts import Target
from apps.core.logging import redact
from apps.gateway.errors import (
    BODY_TOO_LARGE,
    CONTENT_FILTERED,
    CONTEXT_TOO_LONG,
    UPSTREAM_FAILED,
    UPSTREAM_MISCONFIGURED,
    UPSTREAM_OVERLOADED,
    UPSTREAM_UNAUTHORIZED,
    GatewayError,
)

MAX_MESSAGE_LENGTH: Final = 1_000
MAX_RETRY_AFTER_S: Final = 3_600
LEAST_SECRET: Final = 8
"""A part of a credential that is shorter is a word like others."""
BESIDE: Final = "\0"
"""Between the credentials that a route's upstream was shown, where they are several. None has it within."""
_TELLTALE = re.compile(r"https?://\S+|arn:aws\S*|projects/\S+")
"""Addresses and resource names in a vendor's sentence."""
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")
READ_BYTES: Final = 8 << 10
"""So much of a 403 or 400 is searched for its meaning."""
_FILTERED: Final = re.compile(
    rb"violates (our |the )?(usage|content) (guidelines|polic)|SAFETY_CHECK_TYPE|content_(filter|policy_violation)"
    rb"|flagged_input|input was flagged|ResponsibleAIPolicyViolation|content_moderation_failed|prompt was flagged",
    re.IGNORECASE,
)
"""xAI, OpenRouter, and gateways that speak for Azure."""
_ELSEWHERE: Final = re.compile(
    rb"unsupported_country_region_territory|\"Request not allowed\"|<html|<!doctype html"
    rb"|(country|region|territory|location)[^.\"]{0,40} (is )?not (supported|available)",
    re.IGNORECASE,
)
"""OpenAI, Google, Anthropic; pages are those of a network in front of the vendor, which lets some addresses pass."""
_NOT_THIS_MODEL: Final = re.compile(
    rb"model_not_found|(not|no) (have )?access to (the |this )?model|model_(permission|access)|terms_required",
    re.IGNORECASE,
)
"""OpenAI, Groq."""
_TOO_LONG: Final = re.compile(
    r"(maximum|model'?s) (context|prompt) length|maximum context|available context size|prompt is too long"
    r"|exceed(s|ed)? (the )?(model'?s? )?(maximum )?(context|n_ctx)|too large for model with",
    re.IGNORECASE,
)
"""vLLM, DeepSeek, Fireworks, OpenRouter, xAI, llama.cpp, Mistral. Only OpenAI's own and Groq's have a code."""
_WRONG_KEY: Final = re.compile(rb"(incorrect|invalid) api key", re.IGNORECASE)


def error_object(body: bytes) -> dict[str, Any]:
    """The `error` of an error answer; {} for one without. Google wraps some in a list. vLLM, SGLang and Mistral tell it
    at the top, LM Studio as a text; Mistral and others have what their framework makes of a wrong field."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return {}
    error = answer.get("error")
    if isinstance(error, str):
        return {"message": error}
    if error is None and answer.get("object") == "error":
        error = answer
    if error is None and "detail" in answer:
        error = _of_framework(answer["detail"])
    return error if isinstance(error, dict) else {}


def _of_framework(detail: object) -> dict[str, Any]:
    """FastAPI's `detail`: a text, or what is wrong with each field."""
    if isinstance(detail, str):
        return {"message": detail}
    first = detail[0] if isinstance(detail, list) and detail else None
    if not isinstance(first, dict):
        return {}
    place = first.get("loc")
    named = [str(step) for step in place if step != "body"] if isinstance(place, list) else []
    return {"message": first.get("msg"), "param": ".".join(named) or None}


def is_too_long(status: int, error: dict[str, Any]) -> bool:
    """Whether the prompt has more tokens than the model takes. Only OpenAI and Groq have a code for it."""
    if error.get("type") == "exceed_context_size_error":
        return True
    told = error.get("message")
    return status in (400, 413, 422) and isinstance(told, str) and _TOO_LONG.search(told[:READ_BYTES]) is not None


def failure_within(body: bytes) -> GatewayError | None:
    """What an error means that came with 200, as those of OpenRouter do; None where there is none. LM Studio says so of
    addresses that it does not know."""
    error = error_object(body)
    if not error:
        return None
    code = error.get("code")
    return by_status(code if type(code) is int and 400 < code < 600 else 502, body=body)


def presentable(message: object, *, target: Target, model: str) -> str:
    """A vendor's sentence without its addresses, its name for the model, and anything like a credential."""
    if not isinstance(message, str):
        return ""
    message = _TELLTALE.sub("…", message.replace(target.upstream_model, model))
    keys = target.api_key.split(BESIDE)
    parts = [part for key in keys for part in (key, *key.split(":", 2), *key.split(":"))]
    for part in (*parts, urlsplit(target.base_url).hostname or ""):
        if len(part) >= LEAST_SECRET or (part and part in keys):
            message = _as_written(part).sub("…", message)
    return redact(message)[:MAX_MESSAGE_LENGTH]


def presentable_name(name: object, *, target: Target, model: str) -> str | None:
    """A vendor's code, or its name for a field; None for what is neither or tells too much."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    return name if presentable(name, target=target, model=model) == name else None


def _as_written(secret: str) -> re.Pattern[str]:
    """Everything that the secret looks like in an address, or in JSON within JSON, in small letters or capitals."""
    spellings = (secret, quote(secret, safe=""), secret.replace("/", "\\/"))
    return re.compile("|".join(map(re.escape, spellings)), re.IGNORECASE)


def seconds(retry_after: str | None) -> int:
    """What a Retry-After header asks for; 0 without one in seconds."""
    if not retry_after or not re.fullmatch(r"[0-9]{1,9}", retry_after):
        return 0
    return min(int(retry_after), MAX_RETRY_AFTER_S)


def by_status(status: int, retry_after_s: int = 0, *, body: bytes = b"") -> GatewayError:
    """What a status other than 200 says where nothing else is known. `body` tells the meanings of 403 apart."""
    if status == 413 and error_object(body).get("code") == "rate_limit_exceeded":
        # Groq: more than the account's tokens of a minute. Another route may take it.
        return GatewayError(UPSTREAM_OVERLOADED, "The upstream's limit is too small for this request.")
    if status == 413:
        return GatewayError(BODY_TOO_LARGE, "The request is too large for the upstream.")
    if status == 401:
        return credential_refused()
    if status == 403:
        return _forbidden(body)
    if status == 408:
        return GatewayError(UPSTREAM_FAILED, "The upstream failed to answer in time.")
    if status in (429, 503, 529):
        message = "The upstream is overloaded; try again later."
        return GatewayError(UPSTREAM_OVERLOADED, message, retry_after_s=retry_after_s)
    if status < 500:
        message = "The upstream does not know this model or endpoint; the operator has to look."
        return GatewayError(UPSTREAM_MISCONFIGURED, message)
    return GatewayError(UPSTREAM_FAILED, "The upstream failed to answer.")


def credential_refused() -> GatewayError:
    """The credential of the route is not taken."""
    return GatewayError(UPSTREAM_UNAUTHORIZED, "The upstream refused our credential; the operator has to look.")


def is_refused_key(body: bytes) -> bool:
    """Whether a 400 says that the credential is wrong, as xAI's does."""
    return _WRONG_KEY.search(body, 0, READ_BYTES) is not None


def _forbidden(body: bytes) -> GatewayError:
    """Vendors say 403 of prompts that their filters refuse, of places that they do not serve, of models that an account
    may not use, and of credentials. Only the last is the credential's fault, only the first that of the prompt."""
    if _FILTERED.search(body, 0, READ_BYTES):
        return prompt_filtered()
    if _ELSEWHERE.search(body, 0, READ_BYTES):
        message = "The upstream does not serve the place that this gateway calls from; the operator has to look."
        return GatewayError(UPSTREAM_MISCONFIGURED, message)
    if _NOT_THIS_MODEL.search(body, 0, READ_BYTES):
        message = "The upstream does not let this account use the model; the operator has to look."
        return GatewayError(UPSTREAM_MISCONFIGURED, message)
    return credential_refused()


def prompt_filtered() -> GatewayError:
    """The prompt was refused by a filter of the vendor's: another try with it ends the same way."""
    return GatewayError(CONTENT_FILTERED, "The upstream's content filter refused the prompt.", param="messages")


def prompt_too_long() -> GatewayError:
    """The vendor counted more tokens than the model takes."""
    return GatewayError(CONTEXT_TOO_LONG, "The prompt is longer than the model's context.", param="messages")
