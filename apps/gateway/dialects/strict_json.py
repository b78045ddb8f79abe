"""JSON at the door: what every request body must be before anybody looks at its fields. Pure.

orjson refuses NaN, infinities, lone surrogates and broken UTF-8. What it lets pass is looked for here: deep nesting,
huge objects, integers that not every reader of JSON takes for the same number, and a key that comes twice at the top
level, of which our reading and another one may take different values (decision 0023).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import orjson

from apps.gateway.dialects.large_body import Body, LargeBody
from apps.gateway.errors import BAD_REQUEST, BODY_TOO_LARGE, GatewayError, bad_field

MAX_DEPTH: Final = 64
MAX_KEYS: Final = 10_000
MAX_VALUES: Final = 100_000
"""Of a body in all. Lists of nothing but integers, such as token ids, count as one."""
MAX_CONTAINERS: Final = 50_000
"""Objects and lists of a body: each is dearer to make than a number."""
MAX_PIECES: Final = 400_000
"""Of a body in all, every token id counted: no 2 MB of real ones have more."""
MAX_INTEGER: Final = 2**53
MAX_TEXT_BYTES: Final = 2 << 20
"""A body has no more than this beside its media; with them the door's own limit counts."""

_HUGE: Final = 2.0**63
"""orjson reads integers beyond 64 bits as floats: larger ones are looked up in the text."""
_CHUNK: Final = 64 << 10
"""Media are skipped in chunks: to find nothing in one is ten times cheaper than to count."""
_EXPLAINED_BYTES: Final = 64 << 10
"""In no larger body is the place of what orjson refused looked for."""
_MAX_PLACE: Final = 200
_REWRITTEN_BYTES: Final = 256 << 10
_FLAT_BYTES: Final = 2 << 10
"""Of no more bytes than this it is cheaper to count brackets than to look; and they hold no 10 000 keys."""
_FEW_COMMAS: Final = MAX_CONTAINERS // 1_100
"""No more containers than allowed stand between so few: orjson reads 1 024 levels at most."""
_LONG_LIST: Final = 64
"""A list of so many integers is cheaper to look at as a whole."""
Checked = TypeVar("Checked")
_LARGE_INTEGER: Final = f"An integer may be {MAX_INTEGER} (2^53) at most, and no less than that below zero."
_TOO_MANY_KEYS: Final = f"An object may have {MAX_KEYS:,} keys at most."
_TOO_MANY_VALUES: Final = (
    f"A request may have {MAX_VALUES:,} values in all, {MAX_CONTAINERS:,} of them objects and lists, and"
    f" {MAX_PIECES:,} token ids."
)
_TOO_DEEP: Final = f"The request body is nested deeper than {MAX_DEPTH} levels."


class _Broken(Exception):
    """A rule is broken somewhere: by which values, and what the caller is told."""

    def __init__(self, is_wrong: Callable[[object], bool], message: str) -> None:
        super().__init__(message)
        self.is_wrong = is_wrong
        self.message = message


def read_object(raw: Body) -> dict[str, Any]:
    """The object that a body is. Raises GatewayError: 400 that names the place, 413 for too much beside its media."""
    if isinstance(raw, LargeBody):
        body = _read(raw.rest, raw.told)
        raw.put_back(body)
        return body
    return _read(raw)


def _read(raw: bytes, told: Callable[[orjson.JSONDecodeError], str] = str) -> dict[str, Any]:
    """`told` makes words of what orjson found."""
    if len(raw) > MAX_CONTAINERS:
        _check_pieces(raw)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _explained(raw, told(error)) from None
    if type(body) is not dict:
        raise GatewayError(BAD_REQUEST, "The request body must be a JSON object.")
    if len(raw) <= _REWRITTEN_BYTES and _is_written_our_way(body, raw):
        if len(raw) > _FLAT_BYTES or raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
            _check(_check_shape, body)
        return body
    keys, colons, has_huge = _check(_walk, body)
    if has_huge:
        _check_integers(raw)
    # Every key has a colon after it, and every other colon stands in a string. So when there are as many colons as
    # keys and strings that are left account for, no key was lost, unless an escape made a colon out of none.
    if _count(raw, b":") != keys + colons or _has_escaped_colon(raw):
        _check_top_level_keys(raw)
    return body


def too_much_text() -> GatewayError:
    """413 for a body that has too much beside its media."""
    return GatewayError(BODY_TOO_LARGE, f"A request may have {MAX_TEXT_BYTES >> 20} MB without its media.")


def _check_pieces(raw: bytes) -> None:
    """Raises GatewayError for a body of so many values that to make them would keep everybody else waiting: 413 for one
    that is too large for text, else 400."""
    commas = _count(raw, b",")
    if commas <= _FEW_COMMAS:
        return
    if len(raw) > MAX_TEXT_BYTES and commas > MAX_TEXT_BYTES:  # media have hardly any, so all this is text
        raise too_much_text()
    if commas <= MAX_PIECES and _count(raw, b"[") + _count(raw, b"{") <= MAX_CONTAINERS:
        return
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') <= 4 * MAX_VALUES:  # every value has two at most, and its key two more
        outside = b"".join(plain.split(b'"')[::2])
        commas, openings = outside.count(b","), outside.count(b"[") + outside.count(b"{")
        if commas <= MAX_PIECES and openings <= MAX_CONTAINERS:
            return
    raise GatewayError(BAD_REQUEST, _TOO_MANY_VALUES)


def _is_written_our_way(body: dict[str, Any], raw: bytes) -> bool:
    """Whether writing it again gives the same bytes: then nobody can read anything else in them, no key came twice, and
    no integer is too large. That is how most clients write."""
    try:
        return orjson.dumps(body, option=orjson.OPT_STRICT_INTEGER) == raw
    except orjson.JSONEncodeError:
        return False


def _check(check: Callable[[dict[str, Any]], Checked], body: dict[str, Any]) -> Checked:
    """What the check gives. Raises GatewayError, with the place, for what it finds."""
    try:
        return check(body)
    except _Broken as broken:
        raise GatewayError(BAD_REQUEST, broken.message, param=_place_of(body, broken.is_wrong)) from None
    except RecursionError:
        field = next((field for field, value in body.items() if _is_too_deep(value)), "")
        raise GatewayError(BAD_REQUEST, _TOO_DEEP, param=field[:_MAX_PLACE]) from None


def _check_shape(body: dict[str, Any]) -> None:
    """Raises RecursionError for too many levels, _Broken for too many keys."""
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            if type(container) is dict:
                if len(container) > MAX_KEYS:
                    raise _Broken(_has_too_many_keys, _TOO_MANY_KEYS)
                container = container.values()
            deeper += [value for value in container if type(value) is dict or type(value) is list]
        if not deeper:
            return
        level = deeper
    raise RecursionError


def _walk(body: dict[str, Any]) -> tuple[int, int, bool]:
    """Level by level: how many keys there are, how many colons in strings, and whether there is a huge number.

    Raises _Broken, or RecursionError for too many levels."""
    keys = colons = depth = values = 0
    has_huge = False
    level: list[Any] = [body]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        deeper: list[Any] = []
        for container in level:
            if type(container) is dict:
                keys += len(container)
                if len(container) > MAX_KEYS:
                    raise _Broken(_has_too_many_keys, _TOO_MANY_KEYS)
                container = container.values()
            elif len(container) > _LONG_LIST and set(map(type, container)) == {int}:
                if max(container) > MAX_INTEGER or min(container) < -MAX_INTEGER:
                    raise _Broken(_is_large_integer, _LARGE_INTEGER)
                continue
            values += len(container)
            if values > MAX_VALUES:
                raise GatewayError(BAD_REQUEST, _TOO_MANY_VALUES)
            for value in container:
                kind = type(value)
                if kind is str:
                    colons += value.count(":") if len(value) < _CHUNK else _count(value, ":")
                elif kind is dict or kind is list:
                    deeper.append(value)
                elif kind is int:
                    if not -MAX_INTEGER <= value <= MAX_INTEGER:
                        raise _Broken(_is_large_integer, _LARGE_INTEGER)
                elif kind is float and not -_HUGE < value < _HUGE:
                    has_huge = True
        level = deeper
    return keys, colons, has_huge


def _is_large_integer(value: object) -> bool:
    return type(value) is int and not -MAX_INTEGER <= value <= MAX_INTEGER


def _has_too_many_keys(value: object) -> bool:
    return type(value) is dict and len(value) > MAX_KEYS


def _is_too_deep(value: object) -> bool:
    """Whether so much is nested in a field that the body is too deep."""
    level = [value]
    for _ in range(MAX_DEPTH - 1):
        level = [child for item in level for child in _children(item)]
    return any(isinstance(item, dict | list) for item in level)


def _is_not_finite(value: object) -> bool:
    return type(value) is float and not abs(value) < float("inf")


def _has_surrogate(value: object) -> bool:
    return type(value) is str and any("\ud800" <= character <= "\udfff" for character in value)


def _children(value: object) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _place_of(body: object, is_wrong: Callable[[object], bool]) -> str | None:
    """Where the first value stands of which that is true: `tools[0].function`; None when there is none."""
    steps = _steps_to(body, is_wrong)
    if steps is None:
        return None
    place = "".join(f"[{step}]" if type(step) is int else f".{step}" for step in steps)
    return place.removeprefix(".")[:_MAX_PLACE]


def _steps_to(container: Any, is_wrong: Callable[[object], bool]) -> list[int | str] | None:
    named: Iterable[tuple[int | str, Any]] = container.items() if type(container) is dict else enumerate(container)
    for step, value in named:
        if is_wrong(value):
            return [step]
        if type(value) is dict or type(value) is list:
            steps = _steps_to(value, is_wrong)
            if steps is not None:
                return [step, *steps]
    return None


def _count(text: Any, character: Any) -> int:
    """`text.count(character)`, much faster where long stretches have none."""
    if len(text) < _CHUNK:
        return int(text.count(character))
    chunks = (text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK))
    return sum(chunk.count(character) for chunk in chunks if character in chunk)


def _has_escaped_colon(raw: bytes) -> bool:
    if b"\\" not in raw:
        return False
    if len(raw) < _CHUNK:
        return b"\\u003" in raw and (b"\\u003a" in raw or b"\\u003A" in raw)
    overlapping = (raw[start : start + _CHUNK + 5] for start in range(0, len(raw), _CHUNK))
    return any(b"\\" in chunk and (b"\\u003a" in chunk or b"\\u003A" in chunk) for chunk in overlapping)


def _check_integers(raw: bytes) -> None:
    """Raises GatewayError for an integer that is too large, though orjson made a float of it."""
    place = _place_of(_read_leniently(raw), _is_large_integer)
    if place is not None:
        raise bad_field(place, _LARGE_INTEGER)


def _read_leniently(raw: bytes, note: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What Python's own reader makes of it. Raises ValueError, and GatewayError for what it finds nested too deep."""
    try:
        return json.loads(raw, parse_int=_integer, object_pairs_hook=note)
    except RecursionError:
        raise GatewayError(BAD_REQUEST, _TOO_DEEP) from None


def _integer(digits: str) -> int:
    """The integer, or one that is too large for one with so many digits that Python would not read it."""
    return int(digits) if len(digits) < 100 else MAX_INTEGER + 1


def _check_top_level_keys(raw: bytes) -> None:
    """Raises GatewayError for a key that comes twice. The slow way, for a body in which one may have come twice."""
    last: list[list[tuple[str, Any]]] = [[]]

    def note(pairs: list[tuple[str, Any]]) -> None:
        last[0] = pairs  # the object that is read last is the one around all others

    _read_leniently(raw, note)
    key, times = Counter(key for key, _ in last[0]).most_common(1)[0] if last[0] else ("", 0)
    if times > 1:
        raise bad_field(key[:_MAX_PLACE], f"{key[:_MAX_PLACE]!r} was given {times} times; give it once.")


def _explained(raw: bytes, told: str) -> GatewayError:
    """Why orjson refused it, with the place, where Python's more lenient reader finds one."""
    message = f"The request body is not valid JSON: {told}"
    if len(raw) > _EXPLAINED_BYTES:
        return GatewayError(BAD_REQUEST, message)
    try:
        body = _read_leniently(raw)
    except ValueError:
        return GatewayError(BAD_REQUEST, message)
    except GatewayError as too_deep:
        return too_deep
    if not isinstance(body, dict):
        return GatewayError(BAD_REQUEST, message)
    for is_wrong, reason in (
        (_is_not_finite, "NaN and infinite numbers are not JSON."),
        (_has_surrogate, "A string has half of a surrogate pair: it is no valid text."),
    ):
        try:
            place = _place_of(body, is_wrong)
        except RecursionError:
            return GatewayError(BAD_REQUEST, _TOO_DEEP)
        if place is not None:
            return bad_field(place, reason)
    return GatewayError(BAD_REQUEST, message)
