"""The name under which an answer is kept: a keyed digest of everything that changes it. Pure."""

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final, cast

import msgspec
import orjson

from apps.catalog.contracts import CatalogSnapshot, OfferedModel
from apps.gateway.dialects.model_request import ModelRequest
from apps.keys.contracts import KeyGrant

NOT_OF_THE_ANSWER: Final = frozenset((
    "user", "metadata", "session_id", "safety_identifier", "prompt_cache_key", "stream", "stream_options",
    "store", "previous_response_id", "conversation",
))  # fmt: skip
"""Fields of a request that do not change what is answered: who asks, and how the answer is carried."""
_NOT_READ: Final = frozenset((
    "stream", "body_bytes", "text_tokens", "output_cut", "texts", "token_lists", "guarding", "pinned", "is_stored",
    "is_kept", "earlier", "earlier_messages", "is_redacted", "inputs", "beside", "gone_audio_tokens", "sealed_by",
))  # fmt: skip
"""What is known of a request beside that: how it came, what was counted, and what stands in its body too."""
_PURPOSE: Final = b"crun cached answers 1"


def name_of(
    grant: KeyGrant, path: str, asked: ModelRequest, snapshot: CatalogSnapshot, *, ring: Mapping[str, bytes]
) -> str:
    """The name of the answer to this request, at this endpoint, for the project of this key.

    Without the ring nobody can find out whether a prompt was asked. It changes with the routes of the models that may
    answer and with the organization's own decisions."""
    digest = hmac.new(next(iter(ring.values())), _PURPOSE, "sha256")
    for part in _parts(grant, path, asked, snapshot):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _parts(grant: KeyGrant, path: str, asked: ModelRequest, snapshot: CatalogSnapshot) -> Iterator[bytes]:
    yield grant.organization_id.encode()
    yield grant.project_id.encode()
    yield b"sandbox" if grant.sandbox else b"live"
    yield b"" if grant.policy is None else msgspec.msgpack.encode(grant.policy)
    yield path.encode()
    for name in _models(asked):
        model = snapshot.models.get(name)
        yield name.encode()
        yield b"" if model is None else _routes(model)
    for field in fields(cast(Any, asked)):  # whatever a dialect reads besides, such as a header, counts by itself
        if field.name not in _NOT_READ:
            yield field.name.encode()
            value = _of_the_answer(getattr(asked, field.name))
            yield orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=sorted)  # some are sets of names


def _of_the_answer(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if name not in NOT_OF_THE_ANSWER}


def _models(asked: ModelRequest) -> list[str]:
    """Whoever may answer, as far as the request makes sense: all of it is among the name, and refused later."""
    listed: Any = asked.body.get("models")
    return [asked.model, *(name for name in (listed if isinstance(listed, list) else ()) if isinstance(name, str))]


def _routes(model: OfferedModel) -> bytes:
    """Who may answer for the model, and within which bounds; neither credentials nor weights."""
    routes = sorted(
        (route.provider, route.dialect, route.base_url, route.upstream_model, sorted(route.options.items()))
        for route in model.targets
    )
    return msgspec.msgpack.encode((model.context_length, model.max_output_tokens, model.refuses_unsupported, routes))
