"""Vendors' files: what is read out of them, and that every misunderstanding is refused with its place."""

import json
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.reconciliation.vendor_reports import VendorFigures, parse_report, words_of
from apps.core.errors import InvalidInput

DAY = date(2026, 8, 5)
START = 1_785_888_000
USAGE_COLUMNS = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count,inference_geo,speed"
)
COST_COLUMNS = "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd"


def result(value: Any, line_item: str | None = "gpt-4o-2024-08-06, input", **changes: Any) -> dict[str, Any]:
    amount = {"value": value, "currency": "usd"}
    return {
        "object": "organization.costs.result",
        "amount": amount,
        "line_item": line_item,
        "project_id": None,
    } | changes


def page(*results: dict[str, Any], **bucket: Any) -> dict[str, Any]:
    day = {"object": "bucket", "start_time": START, "end_time": START + 86_400, "results": list(results)} | bucket
    return {"object": "page", "data": [day], "has_more": False, "next_page": None}


def read(document: Any) -> dict[Any, VendorFigures]:
    return parse_report(json.dumps(document).encode())


def test_openai_costs_are_read_by_day_model_and_line() -> None:
    found = read(page(result(0.06), result("1.5", "gpt-4o-2024-08-06, output"), result(2, "Image models")))
    assert found == {
        (DAY, "gpt-4o-2024-08-06", "input"): VendorFigures(60_000_000),
        (DAY, "gpt-4o-2024-08-06", "output"): VendorFigures(1_500_000_000),
        (DAY, "Image models", "total"): VendorFigures(2_000_000_000),
    }


def test_projects_and_pages_are_added_up_and_no_line_is_all_models() -> None:
    found = read([page(result(0.1, None)), page(result(0.2, None))])
    assert found == {(DAY, "", "total"): VendorFigures(300_000_000)}


def test_amounts_are_decimals_from_the_first_digit_to_the_last() -> None:
    text = json.dumps(page(result(0))).replace('"value": 0', '"value": 0.123456789499999999999')
    [figures] = parse_report(text.encode()).values()
    assert figures == VendorFigures(123_456_789)
    many = read(page(*[result(0.1, None)] * 10))
    assert list(many.values()) == [VendorFigures(1_000_000_000)]


def test_a_credit_is_below_zero() -> None:
    assert list(read(page(result(-3, "credit"))).values()) == [VendorFigures(-3_000_000_000)]


def test_anthropic_usage_is_read_with_both_kinds_of_cache_writes() -> None:
    row = "2026-08-05,claude-opus-5,key,Default,standard,≤ 200k,100,20,3,4000,50,0,us,standard"
    text = f"\ufeff{USAGE_COLUMNS}\r\n{row}\r\n"
    assert parse_report(text.encode()) == {(DAY, "claude-opus-5", "tokens"): VendorFigures(None, 100, 4_000, 23, 50)}


def test_anthropic_costs_are_added_up_over_keys() -> None:
    rows = "".join(
        f"2026-08-05,Claude Haiku 4.5,Default,{key},message,≤ 200k,input_no_cache,0.05,0.05\n" for key in ("a", "b")
    )
    assert parse_report(f"{COST_COLUMNS}\n{rows}".encode()) == {
        (DAY, "Claude Haiku 4.5", "input_no_cache"): VendorFigures(100_000_000)
    }


REFUSED = {
    "nothing": (b"", "neither OpenAI"),
    "no text": (b"\xff\xfe\x00", "UTF-8"),
    "another CSV": (b"day,cost\n2026-01-01,3\n", "neither OpenAI"),
    "no rows": (USAGE_COLUMNS.encode(), "no rows"),
    "half a JSON": (b'{"data": [', "no JSON"),
    "an error of the API": (b'{"error": {"message": "no"}}', "no list `data`"),
    "usage instead of costs": (json.dumps(page({"input_tokens": 5})).encode(), "amount.value"),
    "another currency": (
        json.dumps(page(result(1, amount={"value": 1, "currency": "eur"}))).encode(),
        "currency is eur",
    ),
    "hours": (json.dumps(page(result(1), end_time=START + 3600)).encode(), "one day in UTC"),
    "a day elsewhere": (json.dumps(page(result(1), start_time=START + 60, end_time=None)).encode(), "one day in UTC"),
    "not a number": (json.dumps(page(result(float("nan")))).encode(), "NaN"),
    "an amount in words": (json.dumps(page(result("much"))).encode(), "no amount"),
    "a truth": (json.dumps(page(result(True))).encode(), "no amount"),
    "too much": (json.dumps(page(result(1e30))).encode(), "no amount of money"),
    "tokens below zero": (f"{USAGE_COLUMNS}\n2026-08-05,m,k,w,s,c,-1,0,0,0,0,0,us,s\n".encode(), "line 2"),
    "a date in words": (f"{USAGE_COLUMNS}\ntoday,m,k,w,s,c,1,0,0,0,0,0,us,s\n".encode(), "line 2: 'today' is no date"),
    "a cost in words": (f"{COST_COLUMNS}\n2026-08-05,m,w,k,u,c,t,free,0\n".encode(), "line 2"),
    "a name without end": (f"{COST_COLUMNS}\n2026-08-05,{'m' * 201},w,k,u,c,t,1,0\n".encode(), "longer than 200"),
    "NUL": (f"{COST_COLUMNS}\n2026-08-05,m\0m,w,k,u,c,t,1,0\n".encode(), "NUL characters"),
    "NUL in a name": (json.dumps(page(result(1, line_item="gpt\0, input"))).encode(), "characters that are no text"),
    "half of a character": (json.dumps(page(result(1, line_item="gpt\ud800"))).encode(), "characters that are no"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_understood_is_refused_and_says_where(what: str) -> None:
    content, words = REFUSED[what]
    with pytest.raises(InvalidInput, match=words):
        parse_report(content)


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_file_whatever_breaks_the_reader(content: bytes) -> None:
    with suppress(InvalidInput):
        parse_report(content)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["data", "results", "amount", "value", "currency", "line_item", "start_time", "end_time"]
                ),
                inner,
                max_size=5,
            )
        ),
    )
)
def test_no_json_whatever_breaks_the_reader(document: Any) -> None:
    with suppress(InvalidInput):
        read(document)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("claude-opus-4-5", "claude-opus-4-5-20251101"),
        ("claude-opus-4-5-20251101", "Claude Opus 4.5"),
        ("claude-3-7-sonnet-latest", "Claude Sonnet 3.7"),
        ("anthropic/claude-haiku-4.5", "Claude Haiku 4.5"),
    ],
)
def test_a_model_is_recognized_by_its_words(ours: str, theirs: str) -> None:
    assert words_of(ours) == words_of(theirs)


@pytest.mark.parametrize(("ours", "theirs"), [("gpt-4o", "gpt-4o-mini"), ("gpt-4", "gpt-4-0613"), ("o1", "o3")])
def test_other_models_stay_others(ours: str, theirs: str) -> None:
    assert words_of(ours) != words_of(theirs)
