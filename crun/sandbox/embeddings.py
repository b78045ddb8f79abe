"""Embeddings of the sandbox: vectors made of a hash of each input, the same for the same input at any time."""

import base64
import math
from array import array
from collections.abc import Sequence
from hashlib import shake_256
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from crun.sandbox.answers import Usage, count_words
from crun.sandbox.chat import Script, decoded
from crun.sandbox.errors import bad_request, unknown_model
from crun.sandbox.faults import ChosenFault, Fault, find_fault
from crun.sandbox.planning import JSON, Reply
from crun.sandbox.rendering import Report
from crun.sandbox.steps import Plan, Step

MODEL = "sandbox-embedding"
DIMENSIONS = 64
MAX_NUMBERS = 1 << 20
"""Of an answer: while they are made, nobody else is answered."""
Input = str | list[int]


class EmbeddingsRequest(Struct, frozen=True):
    """What the sandbox uses of a request; every other field is let through unread."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    sandbox: Script = Script()


_decoder = msgspec.json.Decoder(EmbeddingsRequest)
_as_it_should = ChosenFault(Fault("answers as it should"))


def read_embeddings(body: bytes) -> EmbeddingsRequest:
    """The request in `body`. Raises ApiError 400 with `param` naming the field."""
    return decoded(_decoder, body)


def plan_embeddings(request: EmbeddingsRequest, *, presented_key: str) -> Reply:
    """The reply to `request`. Raises ApiError for what the sandbox refuses. Faults of whole answers work."""
    chosen = _as_it_should if request.model == MODEL else find_fault(request.model)
    if chosen is None:
        raise unknown_model(request.model)
    inputs = _inputs(request.input)
    if len(inputs) * (request.dimensions or DIMENSIONS) > MAX_NUMBERS:
        message = f"The sandbox gives {MAX_NUMBERS:,} numbers at most in an answer: ask for fewer dimensions or inputs."
        raise bad_request(message, param="dimensions")
    usage = Usage(sum(map(_tokens, inputs)), 0, 0, 0)
    if chosen.fault.instead is not None:
        return Reply(chosen.fault.instead(presented_key), usage)
    body = _answer(request, inputs, _told(request, chosen, usage))
    length, steps = (len(body.payload), (body,)) if chosen.fault.body is None else chosen.fault.body(body)
    pause_s = (request.sandbox.first_byte_delay_ms + request.sandbox.delay_ms) / 1000
    return Reply(Plan(200, steps, (*JSON, *chosen.fault.headers), length, pause_s), usage)


def vector_of(value: Input, dimensions: int = DIMENSIONS) -> list[float]:
    """The vector of an input: of length 1, in numbers that 32 bits hold."""
    seed = value.encode() if isinstance(value, str) else repr(value).encode()
    raw = shake_256(seed).digest(dimensions)
    centred = [byte - 127.5 for byte in raw]
    length = math.sqrt(sum(number * number for number in centred))
    return array("f", [number / length for number in centred]).tolist()


def _inputs(value: str | list[Any]) -> list[Input]:
    if isinstance(value, str):
        given: list[Any] = [value]
    else:
        given = [value] if value and all(type(item) is int for item in value) else value
    if not given or not all(_is_input(item) for item in given):
        raise bad_request("input must be a string, strings, token ids, or lists of token ids.", param="input")
    return given


def _is_input(item: object) -> bool:
    if isinstance(item, list):
        return bool(item) and all(type(number) is int for number in item)
    return isinstance(item, str) and bool(item)


def _tokens(value: Input) -> int:
    return count_words(value) if isinstance(value, str) else len(value)


def _told(request: EmbeddingsRequest, chosen: ChosenFault, usage: Usage) -> Sequence[Any]:
    """What is said of usage: the scripted object in place of the true one, else what the fault says, as OpenAI does
    for embeddings."""
    if request.sandbox.usage is not None:
        return (request.sandbox.usage,)
    report: Report = chosen.fault.report
    return [_for_embeddings(told) for told in report(usage)]


def _for_embeddings(told: Any) -> Any:
    if not isinstance(told, dict):
        return told
    return {name: told[name] for name in ("prompt_tokens", "total_tokens") if name in told}


def _answer(request: EmbeddingsRequest, inputs: list[Input], told: Sequence[Any]) -> Step:
    vectors = [vector_of(value, request.dimensions or DIMENSIONS) for value in inputs]
    written: list[Any] = vectors
    if request.encoding_format == "base64":
        written = [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]
    document: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(written)],
        "model": request.model,
    }
    if told:
        document["usage"] = told[-1]
    return Step(msgspec.json.encode(document), carries_usage=bool(told) and told[-1] is not None)
