"""A request of the Messages API: checked, as it came and as the Chat Completions request that any upstream takes. Pure.

Source: `MessageCreateParams` in the Messages API reference of Anthropic.
"""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from apps.catalog.contracts import IMAGE_TOKENS, OfferedModel
from apps.gateway.dialects.anthropic_envelope import THREADS_UNSUPPORTED
from apps.gateway.dialects.chat import TOOLS_TOKENS, media_length
from apps.gateway.dialects.chat_fields import (
    A_BOOL,
    AN_OBJECT,
    MAX_USER,
    Check,
    check_fields,
    check_texts,
    clean_name,
    integer_from,
    name_model,
    number_from,
)
from apps.gateway.dialects.large_body import Body
from apps.gateway.dialects.messages.conversation import chat_messages
from apps.gateway.dialects.messages.server_tools import rounds
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object, too_much_text
from apps.gateway.dialects.translated_chat import TranslatedChat, is_strict
from apps.gateway.dialects.vendor_json import write_json
from apps.gateway.errors import BAD_REQUEST, GatewayError, bad_field

_SHARED: Final = ("models", "provider", "session_id", "sandbox")
"""CRUN's own fields, which stand in requests of every dialect, and what the sandbox upstream is told."""
_SAME: Final = ("temperature", "top_p", "top_k")
_TIERS: Final = {"auto": "auto", "standard_only": "default"}
_EFFORT_OF_BUDGET: Final = ((4_096, "low"), (16_384, "medium"))
"""Tokens of thought, at most -> effort; more is high."""
_EFFORTS: Final = {**{word: word for word in ("low", "medium", "high", "xhigh")}, "max": "xhigh"}
"""Anthropic's words as OpenAI's."""
_KNOWN: Final = frozenset({
    *_SHARED, *_SAME, "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "tools", "tool_choice",
    "thinking", "output_config", "output_format", "metadata", "service_tier", "cache_control",
})  # fmt: skip
_IN_CHAT: Final = ("text", "image", "document", "tool_use", "tool_result", "thinking", "redacted_thinking")
"""Kinds of blocks that the chat has, too."""
_SAID_BY_SILENCE: Final[dict[str, tuple[object, ...]]] = {
    "speed": ("standard",),
    "fallbacks": ([],),
    "mcp_servers": ([],),
}
_BETA: Final = re.compile(r"[a-z0-9-]{1,64}")
_COUNTED_WITHOUT: Final = 1
"""A request whose tokens are counted has no bound on its output."""


@dataclass(slots=True)
class MessagesRequest(TranslatedChat):
    """A valid request. `body` is the chat that is asked of upstreams with another dialect."""

    native: dict[str, Any] = field(default_factory=dict)
    """The request as it came, for upstreams that speak this dialect."""
    betas: tuple[str, ...] = ()
    beside: int = 0
    """Bytes, and tokens that nobody sends, of what only upstreams of this dialect read: it does not stand in `body`."""
    shows_thoughts: bool = False
    """Whether the caller asked for thinking: who did not expects the answer's text first."""

    content_field: ClassVar[str] = "messages"
    endpoint: ClassVar[str] = "messages"

    def let_go(self) -> None:
        """The request as it came has the same media."""
        TranslatedChat.let_go(self)
        self.native = {}

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that cannot be asked this. What Anthropic may do by itself counts towards what is held."""
        TranslatedChat.check_model(self, model)
        self.inputs = rounds(self.native, model)

    def input_bound(
        self, context_length: int, *, image_tokens: int = IMAGE_TOKENS, text_tokens: int | None = None
    ) -> int:
        """No more input tokens than this can be billed."""
        bound = TranslatedChat.input_bound(self, context_length, image_tokens=image_tokens, text_tokens=text_tokens)
        return bound if self.inputs > 1 or not self.beside else min(bound + self.beside, context_length)

    @property
    def media(self) -> int:
        """How many images and files the request brings."""
        contents = [message["content"] for message in self.body["messages"]]
        return sum(part["type"] != "text" for parts in contents if isinstance(parts, list) for part in parts)


def parse_messages(raw: Body, betas: tuple[str, ...] = (), *, is_counting: bool = False) -> MessagesRequest:
    """Check a request body. Raises GatewayError (400, 413) naming the first field that is wrong."""
    native = read_object(raw)
    name_model(native)
    _refuse(native)
    for name, value in native.items():
        if value is not None and (check := _CHECKS.get(name)) is not None:
            check(name, value)
    if is_counting:
        native["max_tokens"] = _COUNTED_WITHOUT
    elif native.get("max_tokens") is None:
        raise bad_field("max_tokens", "max_tokens: Field required")
    lost = [name for name, value in native.items() if name not in _KNOWN and not _says_nothing(name, value)]
    chat = _chat(native, lost)
    if len(raw) > MAX_TEXT_BYTES and len(raw) - media_length(chat["messages"]) > MAX_TEXT_BYTES:
        raise too_much_text()
    asked = MessagesRequest(
        model=native["model"],
        stream=native.get("stream") is True,
        choices=1,
        body=chat,
        body_bytes=len(raw),
        lost=(*lost, *(f"anthropic-beta.{beta}" for beta in betas)),
        native=native,
        betas=betas,
        beside=_beside(native) if lost else 0,
        shows_thoughts=_thinks(native.get("thinking")),
    )
    asked.grow_as_written()
    return asked


def _beside(native: dict[str, Any]) -> int:
    """Tools of Anthropic's own, of which each is described to the model in words that nobody sends, and blocks of
    earlier answers in which it ran some."""
    tools = [tool for tool in native.get("tools") or () if tool.get("type") not in (None, "custom")]
    contents = [message["content"] for message in native["messages"]]
    blocks = [each for content in contents if isinstance(content, list) for each in content]
    read_here = [block for block in blocks if block["type"] not in _IN_CHAT]
    return len(write_json([*tools, *read_here])) + TOOLS_TOKENS * len(tools) if tools or read_here else 0


def betas_of(header: str) -> tuple[str, ...]:
    """The names in `anthropic-beta`; what is none is left out."""
    return tuple(dict.fromkeys(name for each in header.split(",") if _BETA.fullmatch(name := each.strip())))


def _says_nothing(name: str, value: Any) -> bool:
    return value is None or value in _SAID_BY_SILENCE.get(name, ())


def _refuse(native: dict[str, Any]) -> None:
    """What would be another answer if it were left out."""
    if native.get("thread") is not None:
        message = "Threads are not kept here: send the whole conversation, without thread."
        raise GatewayError(BAD_REQUEST, message, param="thread", code=THREADS_UNSUPPORTED)
    if native.get("container") is not None:
        raise bad_field("container", "Containers of Anthropic's are not kept here.")
    if native.get("inference_geo") not in (None, "global"):
        raise bad_field("inference_geo", "Where a request is processed cannot be chosen by this field.")


def _chat(native: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    chat: dict[str, Any] = {name: native[name] for name in (*_SHARED, *_SAME) if native.get(name) is not None}
    chat["model"] = native["model"]
    chat["max_tokens"] = native["max_tokens"]
    if native.get("stream") is not None:
        chat["stream"] = native["stream"]
    if native.get("stop_sequences"):
        chat["stop"] = native["stop_sequences"]
    if isinstance(native.get("cache_control"), dict):
        chat["cache_control"] = native["cache_control"]
    chat |= _tools(native, lost)
    chat |= _effort(native)
    chat |= _identity(native, lost)
    chat |= _format(native)
    check_fields({name: value for name, value in chat.items() if name != "tool_choice"})
    chat["messages"] = chat_messages(native.get("system"), native.get("messages"), lost)
    return chat


def _tools(native: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    names: list[Any] = []
    for index, tool in enumerate(native.get("tools") or ()):
        place = f"tools[{index}]"
        if type(tool) is not dict:
            raise bad_field(place, "A tool must be an object.")
        names.append(tool.get("name"))
        if tool.get("type") not in (None, "custom"):
            lost.append(place)
            continue
        made.append(_tool(tool, place))
    choice = _tool_choice(native.get("tool_choice"), names)
    if made:
        return {"tools": made, **choice}
    forces = choice.get("tool_choice") not in (None, "auto", "none")
    if forces and not names:
        raise bad_field("tool_choice", "tool_choice demands a tool, but there are no tools.")
    return {"tool_choice": choice["tool_choice"]} if forces else {}


def _tool(tool: dict[str, Any], place: str) -> dict[str, Any]:
    name, schema, description = tool.get("name"), tool.get("input_schema"), tool.get("description")
    if type(name) is not str or not name:
        raise bad_field(f"{place}.name", "A tool must have a name, which is a string.")
    if type(schema) is not dict:
        raise bad_field(f"{place}.input_schema", "input_schema must be a JSON schema, which is an object.")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    if description is not None:
        function["description"] = description
    if tool.get("strict") is not None:
        function["strict"] = tool["strict"]
    marked = isinstance(tool.get("cache_control"), dict)
    return {"type": "function", "function": function} | ({"cache_control": tool["cache_control"]} if marked else {})


def _tool_choice(choice: Any, names: list[Any]) -> dict[str, Any]:
    if choice is None:
        return {}
    kind = choice.get("type")
    made: dict[str, Any] = {}
    if kind == "tool":
        if choice.get("name") not in names or choice.get("name") is None:
            raise bad_field("tool_choice.name", "tool_choice must name one of the tools.")
        made["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif kind in ("auto", "any", "none"):
        made["tool_choice"] = "required" if kind == "any" else kind
    else:
        raise bad_field("tool_choice.type", "tool_choice must be of the type auto, any, tool or none.")
    if choice.get("disable_parallel_tool_use") is True:
        made["parallel_tool_calls"] = False
    return made


def _thinks(thinking: Any) -> bool:
    return isinstance(thinking, dict) and thinking.get("type") != "disabled" and thinking.get("display") != "omitted"


def _effort(native: dict[str, Any]) -> dict[str, Any]:
    """How long to think, as an effort: what the caller says itself, or what its budget comes to."""
    thinking, config = native.get("thinking") or {}, native.get("output_config") or {}
    said, kind = config.get("effort"), thinking.get("type")
    if said is not None and (type(said) is not str or said not in _EFFORTS):
        raise bad_field("output_config.effort", f"effort must be one of: {', '.join(_EFFORTS)}.")
    if kind == "disabled" or (kind is None and said is None):
        return {}
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if type(budget) is not int or budget < 1:
            raise bad_field("thinking.budget_tokens", "budget_tokens must be an integer of 1 or more.")
        said = said or next((effort for most, effort in _EFFORT_OF_BUDGET if budget <= most), "high")
    return {"reasoning_effort": _EFFORTS[said or "medium"]}


def _identity(native: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    user = (native.get("metadata") or {}).get("user_id")
    try:
        if user:
            made["user"] = clean_name("metadata.user_id", user, most=MAX_USER)
    except GatewayError:
        lost.append("metadata.user_id")
    tier = native.get("service_tier")
    if tier is not None:
        if type(tier) is not str or tier not in _TIERS:
            raise bad_field("service_tier", f"service_tier must be one of: {', '.join(_TIERS)}.")
        made["service_tier"] = _TIERS[tier]
    return made


def _format(native: dict[str, Any]) -> dict[str, Any]:
    wanted = (native.get("output_config") or {}).get("format") or native.get("output_format")
    if wanted is None:
        return {}
    schema = wanted.get("schema") if isinstance(wanted, dict) and wanted.get("type") == "json_schema" else None
    if type(schema) is not dict:
        raise bad_field("output_config.format", "format must be of the type json_schema and have a schema.")
    described = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": described}}


def _list(name: str, value: Any) -> None:
    if type(value) is not list:
        raise bad_field(name, f"{name} must be a list.")


_CHECKS: Final[dict[str, Check]] = {
    "max_tokens": integer_from(1),
    "temperature": number_from(0, 1),
    "top_p": number_from(0, 1),
    "top_k": integer_from(0),
    "stream": A_BOOL,
    "stop_sequences": check_texts,
    "tools": _list,
    "tool_choice": AN_OBJECT,
    "thinking": AN_OBJECT,
    "output_config": AN_OBJECT,
    "metadata": AN_OBJECT,
}
