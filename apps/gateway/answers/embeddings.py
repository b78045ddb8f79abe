"""An upstream's embeddings on their way to the client: checked and billed. Vectors stay the bytes that they came as."""

import asyncio
import base64
import binascii
import math
import sys
from array import array
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, Final

import msgspec

from apps.gateway.answers.relay import Given, cost_for_client
from apps.gateway.dispatch import Exchange
from apps.gateway.errors import UPSTREAM_FAILED, GatewayError
from apps.gateway.metering.token_usage import ToldUsage, read_usage, served_tier
from apps.usage.contracts import Outcome, TokenCounts

INLINE_BYTES: Final = 256 << 10
"""A larger answer is made ready in steps: some ten milliseconds a MB, in which nobody else would be served."""
STEP_BYTES: Final = 128 << 10
"""About five milliseconds of the dearest way: base64 into decimal numbers."""
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


def give_embeddings(exchange: Exchange, body: bytes) -> Given | Awaitable[Given]:
    """The answer under our names, and its record. Raises GatewayError for what are no embeddings of the request."""
    if len(body) > INLINE_BYTES:
        return _give_in_steps(exchange, body)
    with _only_embeddings():
        answer = _decoder.decode(body)
        return _close(exchange, answer, list(_written(exchange, answer)))


async def _give_in_steps(exchange: Exchange, body: bytes) -> Given:
    """The same for an answer of many MB, which are turned into other numbers vector by vector."""
    with _only_embeddings():
        answer = _decoder.decode(body)
        written, at_once = [], 0
        for index, vector in _written(exchange, answer):
            written.append((index, vector))
            at_once += len(vector)
            if at_once > STEP_BYTES:
                at_once = 0
                await asyncio.sleep(0)
        return _close(exchange, answer, written)


def close_left(exchange: Exchange, body: bytes) -> None:
    """A client that leaves before its answer is made ready pays for what the upstream told."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # then for its input, as we estimate it
        told = _note_usage(exchange, _decoder.decode(body))
        exchange.meter.close_partial(Outcome.CANCELLED, told.tokens, 0, error_code="client_closed")


@contextmanager
def _only_embeddings() -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise GatewayError(UPSTREAM_FAILED, "The upstream's answer are no embeddings of the request.") from error


def _close(exchange: Exchange, answer: _Answer, written: list[tuple[int, bytes]]) -> Given:
    """The vectors in the order of the inputs. Raises ValueError when they are not one for each."""
    inputs = exchange.admission.asked.inputs
    written.sort(key=itemgetter(0))
    if [index for index, _ in written] != list(range(inputs)):
        raise ValueError(f"{len(written)} vectors for {inputs} inputs")
    meter = exchange.meter
    told = _note_usage(exchange, answer)
    if told.tokens is None:
        tokens = TokenCounts(input=exchange.admission.asked.input_estimate())
        closed = meter.close(Outcome.COMPLETED, tokens, estimated=True)
    else:
        closed = meter.close(Outcome.COMPLETED, told.tokens)
    prompt = closed.tokens.all_input
    usage = {"prompt_tokens": prompt, "total_tokens": prompt, **cost_for_client(closed)}
    rest = _encoder.encode({"model": exchange.admission.model.id, "usage": usage})
    parts = [part for _, vector in written for part in (b",", vector)]  # joined once: they may be a hundred MB
    parts[0] = b'{"object":"list","data":['
    if exchange.keeping is not None and closed.tokens == TokenCounts(input=prompt):
        usage_kept = _encoder.encode({"usage": {"prompt_tokens": prompt, "total_tokens": prompt}})
        exchange.keeping.content(exchange, [*parts, b"],", usage_kept[1:]], closed)
    return b"".join([*parts, b"],", rest[1:]]), closed


def _note_usage(exchange: Exchange, answer: _Answer) -> ToldUsage:
    exchange.meter.received(0, 0)
    told = _told(answer.usage, bound=exchange.admission.token_bound)
    exchange.meter.note_usage(told, served_tier(exchange.admission.asked.asked_tier, answer.service_tier))
    return told


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


def _written(exchange: Exchange, answer: _Answer) -> Iterator[tuple[int, bytes]]:
    """Each vector with its index, as the caller gets it. Raises ValueError for a wrong one."""
    encoding = exchange.admission.asked.body.get("encoding_format") or "float"
    for position, vector in enumerate(answer.data):
        index = position if vector.index is None else vector.index
        yield index, _encoder.encode(_Given(index, _encoded(vector.embedding, encoding)))


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
