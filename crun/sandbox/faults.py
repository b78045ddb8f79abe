"""The table of faults: what each `sandbox-fault-NAME` model does. docs/sandbox.md shows the same table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from crun.sandbox import mutations
from crun.sandbox.answers import Usage
from crun.sandbox.errors import ApiError
from crun.sandbox.rendering import Report, true_report, usage_object
from crun.sandbox.steps import Act, Headers, Outcome, Plan, Step, whole

PREFIX = "sandbox-fault-"
METADATA_URL = "http://169.254.169.254/latest/meta-data/"
HTML = b"<!doctype html>\n<html><body><h1>200 OK</h1><p>This is not the page you want.</p></body></html>\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """One row. What is not given behaves as in sandbox-echo; `numbered` names end in `-K` (or `-N`)."""

    summary: str
    numbered: bool = False
    # Replaces the whole reply; gets the key that the caller presented.
    instead: Callable[[str], Plan] | None = None
    stream: Callable[[Iterator[Step], mutations.Setting], Iterator[Step]] | None = None
    body: Callable[[Step], mutations.Reshaped] | None = None
    report: Report = true_report
    headers: Headers = ()
    fails_first: bool = False


@dataclass(frozen=True, slots=True)
class ChosenFault:
    """A row and the number its model name ended in (0 for rows without one)."""

    fault: Fault
    number: int = 0


def find_fault(model: str) -> ChosenFault | None:
    """The fault that `model` names, None when there is none of that name."""
    if not model.startswith(PREFIX):
        return None
    name = model.removeprefix(PREFIX)
    plain = FAULTS.get(name)
    if plain is not None and not plain.numbered:
        return ChosenFault(plain)
    stem, _, digits = name.rpartition("-")
    numbered = FAULTS.get(stem)
    if numbered is None or not numbered.numbered or not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        return None
    return ChosenFault(numbered, int(digits))


def fault_models() -> list[str]:
    """Every fault as a model name; numbered ones with 3 as their number."""
    return [f"{PREFIX}{name}-3" if fault.numbered else f"{PREFIX}{name}" for name, fault in FAULTS.items()]


def refuse(error: ApiError) -> Plan:
    """The plan that answers with `error`."""
    return whole(error.status, error.body, headers=error.headers, outcome=Outcome.ERROR)


OVERLOADED = ApiError(
    503,
    "The sandbox is overloaded.",
    "service_unavailable_error",
    code="overloaded",
    headers=(("retry-after", "1"),),
)


def _status(error: ApiError) -> Fault:
    def answer(key: str) -> Plan:
        message = error.message.replace("{key}", key)
        return refuse(ApiError(error.status, message, error.type, code=error.code, headers=error.headers))

    return Fault(f"{error.status} {error.type}: {error.message}", instead=answer)


def _steps(status: int | None, *steps: Step) -> Callable[[str], Plan]:
    return lambda _key: Plan(status, steps, outcome=Outcome.CUT)


def _slow_headers(_key: str) -> Plan:
    def drip() -> Iterator[Step]:
        yield Step(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
        for count in range(1_200):
            yield Step(b"x-slow-%d: 1\r\n" % count, pause_s=0.5)
        yield Step(act=Act.CUT)

    return Plan(None, drip(), outcome=Outcome.CUT)


def _html(_key: str) -> Plan:
    return whole(200, HTML, headers=(("content-type", "text/html; charset=utf-8"),), outcome=Outcome.ERROR)


def _redirect(_key: str) -> Plan:
    return whole(302, b"", headers=(("location", METADATA_URL),), outcome=Outcome.ERROR)


def _told(**fields: Any) -> Report:
    """Reports the true usage with `fields` in place of its own."""
    return lambda usage: ({**usage_object(usage), **fields},)


def _every_count(change: Callable[[int], Any]) -> Report:
    """Reports the three counts changed by `change`."""

    def report(usage: Usage) -> list[Any]:
        told = usage_object(usage)
        counts = ("prompt_tokens", "completion_tokens", "total_tokens")
        return [{**told, **{name: change(told[name]) for name in counts}}]

    return report


def _cached_over_prompt(usage: Usage) -> list[Any]:
    return [usage_object(replace(usage, cached_tokens=usage.prompt_tokens + 10))]


def _twice(usage: Usage) -> list[Any]:
    return [usage_object(replace(usage, completion_tokens=0)), usage_object(usage)]


_LEAKS = (
    ("server", "sandbox-vendor/1.0"),
    ("set-cookie", "vendor_session=secret; Path=/; HttpOnly"),
    ("x-request-id", "req_of_the_vendor"),
    ("openai-organization", "org-of-the-operator"),
    ("openai-project", "proj_of_the_operator"),
    ("openai-processing-ms", "12"),
    ("openai-version", "2020-10-01"),
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-limit-tokens", "2000000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-remaining-tokens", "1999999"),
    ("x-ratelimit-reset-requests", "6ms"),
    ("x-ratelimit-reset-tokens", "1s"),
    ("cf-ray", "0123456789abcdef-FRA"),
    ("alt-svc", 'h3=":443"; ma=86400'),
    ("strict-transport-security", "max-age=31536000"),
    ("content-security-policy", "default-src 'none'"),
    ("via", "1.1 vendor"),
)
_MANY = tuple((f"x-many-{count}", "1") for count in range(5_000))

FAULTS: dict[str, Fault] = {
    "400": _status(ApiError(400, "The sandbox finds this request bad.", code="invalid_value")),
    "401": _status(ApiError(401, "Incorrect API key provided: {key}.", code="invalid_api_key")),
    "403": _status(ApiError(403, "The sandbox forbids this.", "permission_error", code="forbidden")),
    "404": _status(ApiError(404, "The sandbox has no such model.", code="model_not_found")),
    "413": _status(ApiError(413, "The request is too large.", code="request_too_large")),
    "429": _status(
        ApiError(
            429,
            "Rate limit reached.",
            "rate_limit_error",
            code="rate_limit_exceeded",
            headers=(("retry-after", "2"),),
        )
    ),
    "500": _status(ApiError(500, "The sandbox had an error.", "server_error")),
    "503": _status(OVERLOADED),
    "529": _status(ApiError(529, "Overloaded.", "overloaded_error")),
    "stall": Fault("never sends headers", instead=_steps(None, Step(act=Act.STALL))),
    "stall-after": Fault(
        "stalls after K chunks; not streamed: in the middle of the body",
        numbered=True,
        stream=mutations.stall_after,
        body=mutations.stall_body,
    ),
    "cut": Fault(
        "closes (FIN) after K chunks; not streamed: in the middle of the body",
        numbered=True,
        stream=mutations.cut_after,
        body=mutations.cut_body,
    ),
    "reset": Fault(
        "resets (RST) after K chunks; not streamed: in the middle of the body",
        numbered=True,
        stream=mutations.reset_after,
        body=mutations.reset_body,
    ),
    "refuse": Fault("closes (FIN) before any byte", instead=_steps(None, Step(act=Act.CUT))),
    "garbage": Fault("streams one data line of broken JSON amid good ones", stream=mutations.garbage),
    "html": Fault("200 with an HTML page", instead=_html),
    "bad-utf8": Fault(
        "streams one event with invalid UTF-8 amid good ones; not streamed: invalid UTF-8 in the content",
        stream=mutations.bad_utf8,
        body=mutations.bad_utf8_body,
    ),
    "no-done": Fault("streams all but `[DONE]`", stream=mutations.no_done),
    "no-usage": Fault("never reports usage", report=lambda _: ()),
    "zero-usage": Fault("reports 0 tokens everywhere", report=_every_count(lambda _: 0)),
    "negative-usage": Fault("reports negative counts", report=_every_count(lambda count: -count - 1)),
    "float-usage": Fault("reports counts with a fraction", report=_every_count(lambda count: count + 0.5)),
    "string-usage": Fault("reports counts as strings", report=_every_count(str)),
    "null-usage": Fault("reports `usage: null`", report=lambda _: (None,)),
    "huge-usage": Fault("reports 10^18 completion tokens", report=_told(completion_tokens=10**18)),
    "cached-over-prompt": Fault("reports more cached than prompt tokens", report=_cached_over_prompt),
    "usage-every-chunk": Fault(
        "reports usage so far in every chunk, the true usage at the end", stream=mutations.usage_every_chunk
    ),
    "usage-twice": Fault("reports usage twice: without completion tokens, then the true one", report=_twice),
    "events-after-done": Fault(
        "streams one more chunk and `[DONE]` after `[DONE]`", stream=mutations.events_after_done
    ),
    "error-event": Fault(
        "streams an error event after K chunks and ends; not streamed: 200 with an error body",
        numbered=True,
        stream=mutations.fail_after,
        body=mutations.error_body,
    ),
    "short-body": Fault("not streamed: announces 100 bytes more than it sends, then FIN", body=mutations.short_body),
    "bad-json": Fault("not streamed: 200 with broken JSON", body=mutations.broken_json),
    "redirect": Fault(f"302 to {METADATA_URL}", instead=_redirect),
    "slow-headers": Fault("sends a header line each 0.5 s and never an answer", instead=_slow_headers),
    "torn": Fault("streams the bytes of sandbox-echo 1 to 3 at a time, each an own HTTP chunk", stream=mutations.torn),
    "torn-crlf": Fault("as torn, with CRLF line ends", stream=mutations.torn_crlf),
    "crlf": Fault("ends the lines of its events with CRLF", stream=mutations.crlf),
    "comments": Fault("streams SSE comments and blank lines between the events", stream=mutations.comments),
    "big-line": Fault(
        "streams one line of 10 MB amid good ones; not streamed: a body of 10 MB",
        stream=mutations.big_line,
        body=mutations.big_line_body,
    ),
    "many-headers": Fault("answers with 5000 extra headers", headers=_MANY),
    "leaky-headers": Fault("answers with a vendor's own headers: cookies, limits, organization, ids", headers=_LEAKS),
    "flaky": Fault("503 for N requests, then one good answer, and over again", numbered=True, fails_first=True),
    "gzip": Fault(
        "answers compressed though nobody asked, 32 MiB once unpacked",
        stream=mutations.gzip_bomb,
        body=mutations.gzip_bomb_body,
        headers=(("content-encoding", "gzip"),),
    ),
}
