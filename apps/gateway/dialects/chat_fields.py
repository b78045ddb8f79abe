"""The fields of a Chat Completions request: of which type and size each may be. Pure.

Types are strict: true is no integer, "5" is no 5, and 1.0 is no 1. What has no row here is a vendor's and goes through.
"""

import unicodedata
from collections.abc import Callable
from typing import Any, Final

from apps.gateway.errors import bad_field

MAX_CHOICES: Final = 8
MAX_MODEL_ID: Final = 128
MAX_USER: Final = 256
MAX_STOPS: Final = 64
"""OpenAI takes four, other vendors more."""
MAX_METADATA: Final = 16
MAX_METADATA_KEY: Final = 64
MAX_METADATA_VALUE: Final = 512
MAX_TOP_LOGPROBS: Final = 20
TIERS: Final = ("auto", "default", "flex", "priority")
_MESSAGE_TEXTS: Final = ("name", "tool_call_id", "refusal", "reasoning_content")
_BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that make text look as if it stood in another order."""

Check = Callable[[str, Any], None]


def clean_name(field: str, value: Any, *, most: int, least: int = 1) -> str:
    """A name as it is stored, shown and billed: in Unicode's composed form. Raises GatewayError for control
    characters and for those that change the order of what is shown."""
    if type(value) is not str or not least <= len(value) <= most:
        raise bad_field(field, f"{field} must be a string of {least} to {most} characters.")
    if value.isascii() and value.isprintable():
        return value
    if any(character in _BIDI or unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in value):
        raise bad_field(field, f"{field} must not have control characters.")
    return unicodedata.normalize("NFC", value)


def name_model(body: dict[str, Any]) -> str:
    """The model that a request asks for, which stands in its `model` from then on. Who gives a list of `models` alone
    asks for the first of them. Raises GatewayError."""
    field, model, others = "model", body.get("model"), body.get("models")
    if model is None and type(others) is list and others:
        field, model = "models[0]", others[0]
    name = body["model"] = clean_name(field, model, most=MAX_MODEL_ID)
    return name


def check_fields(body: dict[str, Any]) -> None:
    """Raises GatewayError naming the first field with a wrong value. null is as if it was not given."""
    for field, value in body.items():
        if value is not None and (check := _CHECKS.get(field)) is not None:
            check(field, value)
    choice = body.get("tool_choice")
    if type(choice) is dict:
        _check_forced_tool(choice, body.get("tools") or ())


def check_messages(messages: object) -> None:
    """Raises GatewayError naming the first message, or the part of one, that has a wrong shape."""
    if type(messages) is not list or not messages:
        raise bad_field("messages", "messages must be a list with at least one message.")
    for index, message in enumerate(messages):
        if type(message) is not dict:
            raise bad_field(f"messages[{index}]", "A message must be an object.")
        if type(message.get("role")) is not str:
            raise bad_field(f"messages[{index}].role", "A message must have a role, which is a string.")
        content = message.get("content")
        if type(content) is list:
            _check_parts(f"messages[{index}].content", content)
        elif content is not None and type(content) is not str:
            raise bad_field(f"messages[{index}].content", "content must be a string or a list of content parts.")
        if len(message) > 2 or content is None:
            _check_rest_of_message(f"messages[{index}]", message)


def _check_parts(place: str, parts: list[Any]) -> None:
    for index, part in enumerate(parts):
        if type(part) is not dict:
            raise bad_field(place, "content must be a string or a list of content parts.")
        if part.get("type") == "text" and type(part.get("text")) is not str:
            raise bad_field(f"{place}[{index}].text", "The text of a content part must be a string.")


def _check_rest_of_message(place: str, message: dict[str, Any]) -> None:
    for field in _MESSAGE_TEXTS:
        value = message.get(field)
        if value is not None and type(value) is not str:
            raise bad_field(f"{place}.{field}", f"{field} must be a string.")
    calls = message.get("tool_calls")
    if calls is None:
        return
    if type(calls) is not list:
        raise bad_field(f"{place}.tool_calls", "tool_calls must be a list.")
    for index, call in enumerate(calls):
        where = f"{place}.tool_calls[{index}]"
        if type(call) is not dict:
            raise bad_field(where, "A tool call must be an object.")
        function = call.get("function")
        if function is not None:
            _check_function(f"{where}.function", function, texts=("arguments",))


def _check_function(place: str, function: object, *, texts: tuple[str, ...] = ("description",)) -> None:
    if type(function) is not dict:
        raise bad_field(place, "A function must be an object.")
    name = function.get("name")
    if type(name) is not str or not name:
        raise bad_field(f"{place}.name", "A function must have a name, which is a string.")
    for field in texts:
        if function.get(field) is not None and type(function[field]) is not str:
            raise bad_field(f"{place}.{field}", f"{field} must be a string.")
    if type(function.get("parameters")) not in _OBJECT_OR_NONE:
        raise bad_field(f"{place}.parameters", "parameters must be a JSON schema, which is an object.")
    if type(function.get("strict")) not in _BOOL_OR_NONE:
        raise bad_field(f"{place}.strict", "strict must be true or false.")


def _check_tools(field: str, tools: Any) -> None:
    if type(tools) is not list:
        raise bad_field(field, f"{field} must be a list.")
    for index, tool in enumerate(tools):
        place = f"{field}[{index}]"
        if type(tool) is not dict:
            raise bad_field(place, "A tool must be an object.")
        if type(tool.get("type")) is not str:
            raise bad_field(f"{place}.type", "A tool must have a type, which is a string.")
        if tool["type"] == "function":
            _check_function(f"{place}.function", tool.get("function"))


def _check_functions(field: str, functions: Any) -> None:
    """The tools of old clients."""
    if type(functions) is not list:
        raise bad_field(field, f"{field} must be a list.")
    for index, function in enumerate(functions):
        _check_function(f"{field}[{index}]", function)


def _check_tool_choice(field: str, choice: Any) -> None:
    if type(choice) is dict:
        if type(choice.get("type")) is not str:
            raise bad_field(f"{field}.type", "tool_choice must have a type, which is a string.")
    elif type(choice) is not str:
        raise bad_field(field, f"{field} must be a string or an object.")


def _check_forced_tool(choice: dict[str, Any], tools: Any) -> None:
    """A function that is forced must be there: to answer without it would be another answer."""
    if choice["type"] != "function":
        return
    function = choice.get("function")
    name = function.get("name") if type(function) is dict else None
    if type(name) is not str:
        raise bad_field("tool_choice.function.name", "tool_choice must name the function.")
    if all(tool["type"] != "function" or tool["function"]["name"] != name for tool in tools):
        raise bad_field("tool_choice.function.name", f"No function named {name[:64]!r} is among the tools.")


def _check_response_format(field: str, value: Any) -> None:
    if type(value) is not dict:
        raise bad_field(field, f"{field} must be an object.")
    if type(value.get("type")) is not str:
        raise bad_field(f"{field}.type", "response_format must have a type, which is a string.")
    if value["type"] != "json_schema":
        return
    schema = value.get("json_schema")
    if type(schema) is not dict:
        raise bad_field(f"{field}.json_schema", "response_format of type json_schema must have it, as an object.")
    if schema.get("name") is not None and type(schema["name"]) is not str:
        raise bad_field(f"{field}.json_schema.name", "The name of a schema must be a string.")
    if type(schema.get("schema")) not in _OBJECT_OR_NONE:
        raise bad_field(f"{field}.json_schema.schema", "A JSON schema must be an object.")


def _check_stream_options(field: str, value: Any) -> None:
    if type(value) is not dict:
        raise bad_field(field, f"{field} must be an object.")
    for name in ("include_usage", "include_obfuscation"):
        if type(value.get(name)) not in _BOOL_OR_NONE:
            raise bad_field(f"{field}.{name}", f"{name} must be true or false.")


def _check_logit_bias(field: str, value: Any) -> None:
    if type(value) is not dict:
        raise bad_field(field, f"{field} must be an object.")
    for token, bias in value.items():
        if type(bias) not in (int, float) or not -100 <= bias <= 100:
            raise bad_field(f"{field}.{token[:64]}", "A bias must be a number from -100 to 100.")


def _check_metadata(field: str, value: Any) -> None:
    if type(value) is not dict or len(value) > MAX_METADATA:
        raise bad_field(field, f"{field} must be an object with {MAX_METADATA} keys at most.")
    for key, text in value.items():
        place = f"{field}.{key[:MAX_METADATA_KEY]}"
        clean_name(place, key, most=MAX_METADATA_KEY)
        clean_name(place, text, most=MAX_METADATA_VALUE, least=0)


def _check_stop(field: str, value: Any) -> None:
    if type(value) is str:
        return
    if type(value) is not list or len(value) > MAX_STOPS or any(type(text) is not str for text in value):
        raise bad_field(field, f"stop must be a string or a list of {MAX_STOPS} strings at most.")


def check_texts(field: str, value: Any) -> None:
    """A list of strings."""
    if type(value) is not list or any(type(text) is not str for text in value):
        raise bad_field(field, f"{field} must be a list of strings.")


def _check_tier(field: str, value: Any) -> None:
    if type(value) is not str or value not in TIERS:
        raise bad_field(field, f"{field} must be one of: {', '.join(TIERS)}.")


def _check_function_call(field: str, value: Any) -> None:
    if type(value) is not str and (type(value) is not dict or type(value.get("name")) is not str):
        raise bad_field(field, f"{field} must be a string, or an object with the name of a function.")


def number_from(low: float, high: float) -> Check:
    """A number between these, both included."""

    def check(field: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise bad_field(field, f"{field} must be a number from {low:g} to {high:g}.")

    return check


def integer_from(low: int | None = None, high: int | None = None) -> Check:
    """An integer between these, both included."""
    at_least = "" if low is None else f" of {low} or more"
    bounds = at_least if high is None else f" from {low} to {high}"

    def check(field: str, value: Any) -> None:
        if type(value) is not int or (low is not None and value < low) or (high is not None and value > high):
            raise bad_field(field, f"{field} must be an integer{bounds}.")

    return check


def instance_of(kind: type, named: str) -> Check:
    """A value of one type, which the error names."""

    def check(field: str, value: Any) -> None:
        if type(value) is not kind:
            raise bad_field(field, f"{field} must be {named}.")

    return check


def _name(most: int) -> Check:
    def check(field: str, value: Any) -> None:
        clean_name(field, value, most=most)

    return check


_OBJECT_OR_NONE: Final = (dict, type(None))
_BOOL_OR_NONE: Final = (bool, type(None))
A_BOOL: Final = instance_of(bool, "true or false")
A_STRING: Final = instance_of(str, "a string")
AN_OBJECT: Final = instance_of(dict, "an object")

_CHECKS: Final[dict[str, Check]] = {
    "temperature": number_from(0, 2),
    "top_p": number_from(0, 1),
    "presence_penalty": number_from(-2, 2),
    "frequency_penalty": number_from(-2, 2),
    "n": integer_from(1, MAX_CHOICES),
    "max_tokens": integer_from(1),
    "max_completion_tokens": integer_from(1),
    "seed": integer_from(),
    "logprobs": A_BOOL,
    "top_logprobs": integer_from(0, MAX_TOP_LOGPROBS),
    "logit_bias": _check_logit_bias,
    "stream": A_BOOL,
    "stream_options": _check_stream_options,
    "stop": _check_stop,
    "response_format": _check_response_format,
    "tools": _check_tools,
    "tool_choice": _check_tool_choice,
    "parallel_tool_calls": A_BOOL,
    "functions": _check_functions,
    "function_call": _check_function_call,
    "service_tier": _check_tier,
    "reasoning_effort": A_STRING,
    "verbosity": A_STRING,
    "modalities": check_texts,
    "audio": AN_OBJECT,
    "prediction": AN_OBJECT,
    "web_search_options": AN_OBJECT,
    "store": A_BOOL,
    "metadata": _check_metadata,
    "session_id": _name(MAX_USER),
    "safety_identifier": _name(MAX_USER),
    "prompt_cache_key": A_STRING,
}
