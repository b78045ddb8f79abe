"""The APIs that providers speak, and the options that each of them has beside address, credential and model. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

MAX_OPTION_CHARACTERS = 200


class Option(NamedTuple):
    """One option of a dialect. `expectation` completes "must be ..."."""

    pattern: re.Pattern[str]
    expectation: str
    default: str = ""
    required: bool = False


def _one_of(*words: str) -> Option:
    """A choice; the first is the default."""
    return Option(re.compile("|".join(map(re.escape, words))), f"one of {', '.join(words)}", words[0])


_CALLS = Option(re.compile(r"[1-9][0-9]?"), "a number from 1 to 99", "8")
OPTIONS: dict[str, dict[str, Option]] = {
    "openai": {
        "completions": _one_of("chat", "native", "fim"),
        "custom_tools": _one_of("auto", "yes", "no"),
        "tools": Option(
            re.compile(r"[a-z][a-z0-9_:.-]*(,[a-z][a-z0-9_:.-]*)*"), "kinds of tools, such as web_search, with commas"
        ),
        "max_tool_calls": _CALLS,
    },
    "openai-responses": {
        "custom_tools": _one_of("yes", "no"),
        "summaries": _one_of("auto", "never"),
        "tools": Option(
            re.compile(r"(web_search|mcp)(,(web_search|mcp))?"), "web_search, mcp, or both with a comma between them"
        ),
        "max_tool_calls": _CALLS,
    },
    "azure": {
        "api_version": Option(
            re.compile(r"v1|[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?"),
            "v1, or a dated version such as 2024-10-21",
            "v1",
        ),
        "auth": _one_of("api-key", "entra", "entra-client"),
        "cloud": _one_of("public", "us-government", "china"),
    },
    "anthropic": {
        "version": Option(re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}"), "a date such as 2023-06-01", "2023-06-01"),
        "beta": Option(
            re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(,[A-Za-z0-9][A-Za-z0-9._-]*)*"),
            "names of beta features with commas between them",
        ),
        "thinking": _one_of("auto", "adaptive", "budget"),
        "tools": Option(
            re.compile(r"(web_search|web_fetch)(,(web_search|web_fetch))?"),
            "web_search, web_fetch, or both with a comma between them",
        ),
        "max_tool_calls": _CALLS,
    },
    "gemini": {"api_version": _one_of("v1beta", "v1", "v1alpha")},
    "bedrock": {
        "region": Option(
            re.compile(r"[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}"), "an AWS region such as eu-central-1", required=True
        ),
        "auth": _one_of("sigv4", "bearer", "role"),
        "role_arn": Option(
            re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,128}"),
            "the ARN of a role, such as arn:aws:iam::123456789012:role/crun",
        ),
    },
}
"""Dialect -> its options by name. A route's `upstream_model` is what the provider calls the model: at Azure the name of
the deployment, at Bedrock a model id or the id of an inference profile. Anthropic's `thinking` says how Claude is asked
to reason; `auto` goes by the model's name. `completions` says how legacy Completions are asked: as a chat, at the
provider's own endpoint for them (`native`), or at Mistral's for filling gaps (`fim`). `custom_tools` says who takes
tools whose input is a text; `auto`: OpenAI itself. `summaries` are those of reasoning, which OpenAI refuses to accounts
that it has not verified. `tools` are those that the vendor runs and that may be asked for, no more than
`max_tool_calls` times in a request: at Anthropic each of them. Chat Completions have no field for that number, so the
dialect `openai` only holds for as many."""
DIALECTS = tuple(OPTIONS)


def option_problems(dialect: str, options: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(option, what is wrong with it) for everything that the dialect does not know, lacks or cannot use."""
    known = OPTIONS[dialect]
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            yield name, f"is no option of the dialect {dialect} (known: {', '.join(known)})"
        elif len(value) > MAX_OPTION_CHARACTERS or not option.pattern.fullmatch(value):
            yield name, f"must be {option.expectation}"
    for name, option in known.items():
        if option.required and name not in options:
            yield name, f"is required for the dialect {dialect}: {option.expectation}"


def with_defaults(dialect: str, options: Mapping[str, str]) -> dict[str, str]:
    """The options as gateways get them: what was not set has its default, "" where there is none."""
    return {name: options.get(name, option.default) for name, option in OPTIONS.get(dialect, {}).items()}
