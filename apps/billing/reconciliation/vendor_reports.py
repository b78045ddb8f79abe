"""Reading vendors' own figures out of their files: OpenAI's costs as JSON, Anthropic's usage and costs as CSV. Pure.

OpenAI: pages of GET /v1/organization/costs, one or a list of them; grouped by line_item they name models.
Anthropic: the CSV files that its console exports, told apart by their columns."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

from apps.core.errors import InvalidInput
from apps.core.money import NANOS_PER_USD

MAX_BYTES: Final = 20 << 20
MAX_NAME_LENGTH: Final = 200
MAX_USD: Final = Decimal(1_000_000_000)
TOKENS_LINE: Final = "tokens"
TOTAL_LINE: Final = "total"
_DATE: Final = re.compile(r"(?<!\d)(20\d{2}-?[01]\d-?[0-3]\d)(?!\d)")
_BROKEN: Final = re.compile("[\0\ud800-\udfff]")
"""What JSON can spell and no database keeps: NUL and halves of characters."""
_WORD: Final = re.compile(r"[a-z0-9]+")
_TOKEN_COLUMNS: Final = {
    "input_tokens": ("usage_input_tokens_no_cache",),
    "cache_read_tokens": ("usage_input_tokens_cache_read",),
    "cache_write_tokens": (
        "usage_input_tokens_cache_write_5m",
        "usage_input_tokens_cache_write_1h",
        "usage_input_tokens_cache_write",
    ),
    "output_tokens": ("usage_output_tokens",),
}


@dataclass(frozen=True)
class VendorFigures:
    """What a vendor says of one line; None where its report has no such figure. Money in nano-USD."""

    cost_nanos: int | None = None
    input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    output_tokens: int | None = None

    def __add__(self, other: "VendorFigures") -> "VendorFigures":
        pairs = ((getattr(self, one.name), getattr(other, one.name)) for one in fields(self))
        return VendorFigures(*(a if b is None else b if a is None else a + b for a, b in pairs))


Place = tuple[date, str, str]
"""Day, model ("" for all of them together) and line of the bill."""


def parse_report(content: bytes) -> dict[Place, VendorFigures]:
    """The figures of a file; what it says several times of one place (per key, per project) is added up.

    Raises InvalidInput that says where it is not understood, or that it has no rows."""
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"the file is larger than {MAX_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput("the file is not UTF-8 text") from error
    if "\0" in text:
        raise InvalidInput("the file has NUL characters: it is not the text that the vendor exported")
    rows = _openai_rows(text) if text.lstrip()[:1] in ("{", "[") else _anthropic_rows(text)
    found: dict[Place, VendorFigures] = {}
    for (day, model, line), figures in rows:
        if _BROKEN.search(model + line):
            raise InvalidInput(f"a name in the file has characters that are no text: {model[:40]!a}")
        if len(model) > MAX_NAME_LENGTH or len(line) > MAX_NAME_LENGTH:
            raise InvalidInput(f"a name in the file is longer than {MAX_NAME_LENGTH} characters: {model[:40]}...")
        place = (day, model, line)
        found[place] = found[place] + figures if place in found else figures
    if not found:
        raise InvalidInput("the file has no rows")
    return found


def words_of(model: str) -> tuple[str, ...]:
    """What makes a model's name, so that a vendor's `Claude Opus 4.5` or `gpt-4o-2024-08-06` finds our name for it.

    Dates, `latest` and a leading path do not count, nor does the order."""
    name = _DATE.sub(" ", model.rpartition("/")[2].lower())
    return tuple(sorted(word for word in _WORD.findall(name) if word != "latest"))


def _openai_rows(text: str) -> Iterable[tuple[Place, VendorFigures]]:
    try:
        document = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the file is no JSON: {error}") from error
    for number, page in enumerate(document if isinstance(document, list) else [document], 1):
        buckets = page.get("data") if isinstance(page, dict) else None
        if not isinstance(buckets, list):
            raise InvalidInput(f"page {number} has no list `data`: is it an answer of /v1/organization/costs?")
        for position, bucket in enumerate(buckets, 1):
            where = f"page {number}, bucket {position}"
            results = bucket.get("results") if isinstance(bucket, dict) else None
            if not isinstance(results, list):
                raise InvalidInput(f"{where} has no list `results`")
            day = _bucket_day(bucket, where)
            for result in results:
                yield _openai_line(day, result, where)


def _openai_line(day: date, result: Any, where: str) -> tuple[Place, VendorFigures]:
    amount = result.get("amount") if isinstance(result, dict) else None
    if not isinstance(amount, dict) or "value" not in amount:
        raise InvalidInput(f"{where}: a result has no `amount.value`: were usage and costs mixed up?")
    currency = str(amount.get("currency", "usd"))
    if currency.lower() != "usd":
        raise InvalidInput(f"{where}: the currency is {currency[:10]}, not usd")
    item = result.get("line_item") or ""
    model, _, line = str(item).partition(", ")
    return (day, model, line or TOTAL_LINE), VendorFigures(cost_nanos=_nanos(amount["value"], where))


def _bucket_day(bucket: Mapping[str, Any], where: str) -> date:
    try:
        start = int(bucket["start_time"])
        moment = datetime.fromtimestamp(start, UTC)
        length = int(bucket.get("end_time") or start + 86_400) - start
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{where} has no `start_time` in Unix seconds") from error
    if start % 86_400 or length != 86_400:
        raise InvalidInput(f"{where} is not one day in UTC: ask for bucket_width=1d")
    return moment.date()


def _anthropic_rows(text: str) -> Iterable[tuple[Place, VendorFigures]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = {name.strip() for name in reader.fieldnames or ()}
        has_tokens = {"usage_input_tokens_no_cache", "usage_output_tokens"} <= columns
        if "usage_date_utc" not in columns or not (has_tokens or "cost_usd" in columns):
            raise InvalidInput("the file is neither OpenAI's costs (JSON) nor Anthropic's usage or costs (CSV)")
        for row in reader:
            where = f"line {reader.line_num}"
            values = {(name or "").strip(): (value or "").strip() for name, value in row.items() if name is not None}
            day = _csv_day(values["usage_date_utc"], where)
            model = values.get("model_version") or values.get("model") or ""
            if has_tokens:
                yield (day, model, TOKENS_LINE), _token_figures(values, where)
            else:
                line = values.get("token_type") or values.get("cost_type") or TOTAL_LINE
                yield (day, model, line), VendorFigures(cost_nanos=_nanos(values["cost_usd"], where))
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num} is no CSV: {error}") from error


def _token_figures(values: Mapping[str, str], where: str) -> VendorFigures:
    counts = {}
    for name, columns in _TOKEN_COLUMNS.items():
        present = [values[column] for column in columns if column in values]
        if any(value and not (value.isascii() and value.isdigit() and len(value) <= 15) for value in present):
            raise InvalidInput(f"{where}: {', '.join(columns)} must be whole numbers")
        counts[name] = sum(int(value or 0) for value in present) if present else None
    return VendorFigures(**counts)


def _csv_day(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text[:10])
    except ValueError as error:
        raise InvalidInput(f"{where}: {text[:20]!r} is no date") from error


def _nanos(value: Any, where: str) -> int:
    """To the nearest nano-dollar: vendors write more places than they charge."""
    try:
        amount = Decimal(str(value))
    except InvalidOperation as error:
        raise InvalidInput(f"{where}: {str(value)[:20]!r} is no amount") from error
    if not amount.is_finite() or abs(amount) > MAX_USD:
        raise InvalidInput(f"{where}: {str(value)[:20]!r} is no amount of money")
    return int((amount * NANOS_PER_USD).to_integral_value())


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
