"""What GET /models says that a model can be told is not dropped on the way there, in any dialect."""

from typing import Any

import msgspec
import orjson
import pytest

from apps.catalog.dialects import with_defaults
from apps.gateway.dialects.chat import parse_chat
from apps.gateway.listing.models import EXPRESSED, supported_by, supported_parameters
from apps.gateway.providers import PROVIDERS
from tests.factories import TARGET, offered

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}
SENT: dict[str, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 50}, "max_completion_tokens": {"max_completion_tokens": 50},
    "temperature": {"temperature": 0.5}, "top_p": {"top_p": 0.5}, "top_k": {"top_k": 5}, "stop": {"stop": ["x"]},
    "tools": {"tools": [TOOL]}, "tool_choice": {"tools": [TOOL], "tool_choice": "required"},
    "parallel_tool_calls": {"tools": [TOOL], "parallel_tool_calls": False},
    "response_format": {"response_format": SCHEMA},
    "structured_outputs": {"response_format": SCHEMA}, "reasoning_effort": {"reasoning_effort": "low"},
    "frequency_penalty": {"frequency_penalty": 1}, "presence_penalty": {"presence_penalty": 1}, "seed": {"seed": 7},
    "logit_bias": {"logit_bias": {"1": 1}}, "logprobs": {"logprobs": True}, "verbosity": {"verbosity": "low"},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
}  # fmt: skip
OPTIONS = {"bedrock": {"region": "us-east-1", "auth": "bearer"}}
MODELS = {"anthropic": "claude-3-7-sonnet", "gemini": "gemini-2.5-flash", "bedrock": "anthropic.claude-3-7-sonnet"}


def test_every_dialect_says_what_it_can_be_told() -> None:
    assert set(EXPRESSED) == set(PROVIDERS)


@pytest.mark.parametrize("dialect", sorted(PROVIDERS))
@pytest.mark.parametrize("upstream_model", ["gpt-x", "claude-3-7-sonnet", "claude-opus-4-8"])
def test_what_is_listed_is_not_dropped(dialect: str, upstream_model: str) -> None:
    target = msgspec.structs.replace(
        TARGET,
        dialect=dialect,
        options=with_defaults(dialect, OPTIONS.get(dialect, {})),
        upstream_model=MODELS.get(dialect, upstream_model) if upstream_model == "gpt-x" else upstream_model,
    )
    model = offered(targets=(target,), max_output_tokens=20_000)
    dropped = {}
    assert set(supported_parameters(model)) <= set(supported_by(model, target))
    for name in supported_by(model, target):
        body = {"model": "bench-model", "messages": [{"role": "user", "content": "Hi"}], **SENT[name]}
        request = PROVIDERS[dialect].chat_request(parse_chat(orjson.dumps(body)), model, target, request_id="req_1")
        if request.dropped:
            dropped[name] = request.dropped
    assert dropped == {}


def test_a_model_that_takes_no_temperature_says_so() -> None:
    newest = msgspec.structs.replace(TARGET, upstream_model="claude-opus-4-8")
    assert "temperature" not in supported_parameters(offered(targets=(newest,)))
    assert "temperature" in supported_parameters(offered(targets=(TARGET,)))
