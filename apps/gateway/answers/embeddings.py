"""An upstream's embeddings on their way to the client: checked and billed. Vectors stay the bytes that they came as."""

import base64
import binascii
import math
import sys
from array import array
from typing import Any, Final

import msgspec

from apps.gateway.answers.relay import cost_for_client
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import UPSTREAM_FAILED, GatewayError
from apps.gateway.metering.token_usage import ToldUsage, read_usage, served_tier
from apps.usage.contracts import Outcome, RequestClosed, TokenCounts

_NUMBERS: Final = b"0123456789+-.eE, \t\r\n"
"""All that stands in a flat list of JSON numbers, which is known to be valid JSON."""
_EMPTY: Final = b"[] \t\r\n"


class _Vector(msgspec.Struct):
    """One embedding; what else vendors say of it stays here."""

    embedding: msgspec.Raw
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Vector]
    usage: Any = None
    service_tier: Any = None


class _Given(msgspec.Struct, tag_field="object", tag="embedding"):
    """One embedding as our callers get it."""

    index: int
    embedding: msgspec.Raw


_decoder = msgspec.json.Decoder(_Answer)
_encoder = msgspec.json.Encoder()


def give_embeddings(exchange: Exchange, body: bytes) -> tuple[bytes, RequestClosed]:
    """The answer under our names, and its record. Raises GatewayError for what are no embeddings of the request."""
    asked, meter = exchange.admission.asked, exchange.meter
    try:
        answer = _decoder.decode(body)
        vectors = _vectors(answer.data, inputs=asked.inputs, encoding=asked.body.get("encoding_format") or "float")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise GatewayError(UPSTREAM_FAILED, "The upstream's answer are no embeddings of the request.") from error
    meter.received(0, 0)
    told = _told(answer.usage, bound=exchange.admission.token_bound)
    meter.note_usage(told, served_tier(asked.asked_tier, answer.service_tier))
    if told.tokens is None:
        closed = meter.close(Outcome.COMPLETED, TokenCounts(input=asked.input_estimate()), estimated=True)
    else:
        closed = meter.close(Outcome.COMPLETED, told.tokens)
    prompt = closed.tokens.all_input
    usage = {"prompt_tokens": prompt, "total_tokens": prompt, **cost_for_client(closed)}
    ours = {"object": "list", "data": vectors, "model": exchange.admission.model.id, "usage": usage}
    return _encoder.encode(ours), closed


def _told(usage: object, *, bound: int) -> ToldUsage:
    """The usage of a request without output. Vendors leave out what is always zero, or tell the total alone."""
    completed = usage
    if isinstance(usage, dict) and not usage.keys().isdisjoint(("prompt_tokens", "total_tokens")):
        said = {name: value for name, value in usage.items() if value is not None}
        completed = {"prompt_tokens": usage.get("total_tokens"), "completion_tokens": 0, **said}
    told = read_usage(completed, bound=bound)
    if told.tokens is None:
        return ToldUsage(None, told.violation, usage)
    if told.tokens.all_output:
        return ToldUsage(None, "output tokens told for embeddings", usage)
    return ToldUsage(told.tokens, "" if told.tokens.all_input else "no input tokens told for embeddings", usage)


def _vectors(data: list[_Vector], *, inputs: int, encoding: str) -> list[_Given]:
    """The vectors in the order of the inputs, as the caller wants them. Raises ValueError for wrong ones."""
    given = [
        _Given(position if vector.index is None else vector.index, _encoded(vector.embedding, encoding))
        for position, vector in enumerate(data)
    ]
    given.sort(key=lambda each: each.index)
    if [each.index for each in given] != list(range(inputs)):
        raise ValueError(f"{len(data)} vectors for {inputs} inputs")
    return given


def _encoded(embedding: msgspec.Raw, encoding: str) -> msgspec.Raw:
    """A vector as numbers or as base64 of 32-bit floats. Not every upstream gives what it was asked for."""
    text = bytes(embedding)
    if text.startswith(b'"'):
        packed = base64.b64decode(msgspec.json.decode(text), validate=True)
        if not packed or len(packed) % 4:
            raise ValueError("no 32-bit floats")
        return embedding if encoding == "base64" else _unpacked(packed)
    if not text.startswith(b"[") or text[1:-1].translate(None, _NUMBERS) or not text.strip(_EMPTY):
        raise ValueError("neither numbers nor base64")
    return embedding if encoding == "float" else _packed(msgspec.json.decode(text, type=list[float]))


def _unpacked(packed: bytes) -> msgspec.Raw:
    floats = _little_endian(array("f", packed))
    if not math.isfinite(sum(floats)):  # in double precision no sum of so few 32-bit floats is too large
        raise ValueError("no finite numbers")
    return msgspec.Raw(msgspec.json.encode(floats.tolist()))


def _packed(numbers: list[float]) -> msgspec.Raw:
    packed = _little_endian(array("f", numbers)).tobytes()
    return msgspec.Raw(b'"' + binascii.b2a_base64(packed, newline=False) + b'"')


def _little_endian(floats: "array[float]") -> "array[float]":
    """The same, or with its bytes swapped: base64 of vectors is little-endian everywhere."""
    if sys.byteorder == "big":
        floats.byteswap()
    return floats
