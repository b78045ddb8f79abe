"""A request of the Responses API: checked, and made a Chat Completions request that any upstream takes. Pure.

Source: `ResponseCreateParams` in the reference of OpenAI's Responses API.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from apps.catalog.contracts import IMAGE_TOKENS, OfferedModel, Target
from apps.gateway.dialects.chat import TOOLS_TOKENS, media_length
from apps.gateway.dialects.chat_fields import (
    A_BOOL,
    A_STRING,
    AN_OBJECT,
    MAX_USER,
    Check,
    check_fields,
    check_texts,
    clean_name,
    integer_from,
    name_model,
)
from apps.gateway.dialects.large_body import Body
from apps.gateway.dialects.responses.beside_chat import NOTHING, BesideChat, beside_chat
from apps.gateway.dialects.responses.custom_tools import as_functions
from apps.gateway.dialects.responses.history import Account
from apps.gateway.dialects.responses.items import SEALED, Conversation
from apps.gateway.dialects.responses.namespaces import Member
from apps.gateway.dialects.responses.tools import Tools
from apps.gateway.dialects.responses.vendor_tools import DIALECT, rounds
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object, too_much_text
from apps.gateway.dialects.translated_chat import TranslatedChat, is_strict
from apps.gateway.errors import bad_field
from apps.gateway.metering.token_usage import estimate_tokens

ENCRYPTED: Final = "reasoning.encrypted_content"
LOGPROBS: Final = "message.output_text.logprobs"
_SAME: Final = (
    "models", "provider", "session_id", "sandbox", "stream", "stop", "temperature", "top_p", "parallel_tool_calls",
    "service_tier", "safety_identifier", "prompt_cache_key", "metadata",
)  # fmt: skip
_KNOWN: Final = frozenset({
    *_SAME, "model", "input", "instructions", "max_output_tokens", "text", "tools", "tool_choice", "reasoning",
    "include", "user", "store", "top_logprobs", "stream_options", "previous_response_id",
    "conversation",
})  # fmt: skip
_SAID_BY_SILENCE: Final[dict[str, tuple[object, ...]]] = {"background": (False,), "truncation": ("disabled",)}
_STATE: Final = {
    "background": "Answers are not made in the background here: ask with stream.",
    "prompt": "Prompts are not stored here: send the input itself.",
}
_MOVED: Final = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
"""Fields of Chat Completions, which would change the answer, and where they stand here."""


@dataclass(slots=True)
class ResponsesRequest(TranslatedChat):
    """A valid request. `body` is the chat that upstreams are asked."""

    told: dict[str, Any] = field(default_factory=dict)
    """The request as it came: answers repeat its settings."""
    custom_tools: frozenset[str] = frozenset()
    """Names of tools whose input is a text."""
    is_stored: bool = False
    """Whether the answer will be stored, so that another request can go on from it."""
    is_kept: bool = False
    """Whether what is asked and answered is kept: stored, or added to a conversation."""
    earlier: int = 0
    """So many of its first input items come from stored responses, or from a conversation."""
    earlier_messages: int = 0
    """So many of the chat's first messages are not of this turn's input: the instructions, and what came before."""
    is_redacted: bool = False
    """Whether a guardrail took something out of the chat that still stands in `told`."""
    members: dict[str, Member] = field(default_factory=dict)
    """Name of a function -> the tool of a namespace that it stands for."""
    sealed_by: Mapping[str, Account] = field(default_factory=dict)
    """What stands sealed in stored turns -> whose account can open it."""
    beside: BesideChat = NOTHING
    """What a route of the model gets that does not stand in the chat."""

    content_field: ClassVar[str] = "input"
    endpoint: ClassVar[str] = "responses"

    def let_go(self) -> None:
        """The input has the same media; where the answer is kept, so is what this turn brought."""
        messages = self.body["messages"]
        first = self.earlier_messages if self.is_kept else len(messages)
        self.body = {**self.body, "messages": messages[:first]}
        TranslatedChat.let_go(self)
        self.body = {**self.body, "messages": [*self.body["messages"], *messages[first:]]}
        given = self.told["input"]
        if not self.is_kept:
            given = []
        elif self.earlier:
            given = given[self.earlier :]
        self.told, self.earlier = {**self.told, "input": given}, 0

    def can_open(self, sealed: str, target: Target) -> bool:
        """Another account of the same vendor would refuse the whole request for it."""
        mine = (target.provider, target.credential_id)
        return self.sealed_by.get(sealed, mine) == mine

    @property
    def shows_thoughts(self) -> bool:
        """Whether the caller asked for a summary of reasoning."""
        reasoning = self.told.get("reasoning") or {}
        return bool(reasoning.get("summary") or reasoning.get("generate_summary"))

    @property
    def wants_encrypted(self) -> bool:
        """Whether reasoning is to come with what the next request needs of it."""
        return ENCRYPTED in (self.told.get("include") or ())

    def texts_changed(self) -> None:
        """Texts were put in place of others."""
        TranslatedChat.texts_changed(self)
        self.is_redacted = True

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that cannot be asked this. What its vendor may do by itself counts towards what is held."""
        TranslatedChat.check_model(self, model)
        self.inputs = rounds(self.told, model)
        is_native = any(target.dialect == DIALECT for target in model.targets)
        self.beside = beside_chat(self.told) if is_native else NOTHING

    @property
    def images(self) -> int:
        """How many images the request brings."""
        return self._images_of_messages() + self.beside.images

    def input_estimate(self) -> int:
        """Tokens of all text in it, by our own estimate."""
        return TranslatedChat.input_estimate(self) + estimate_tokens(self.beside.text_bytes)

    def input_bound(
        self, context_length: int, *, image_tokens: int = IMAGE_TOKENS, text_tokens: int | None = None
    ) -> int:
        """No more input tokens than this can be billed. What a vendor's tool finds may fill the context."""
        if self.inputs > 1:
            return context_length * self.inputs
        bound = TranslatedChat.input_bound(self, context_length, image_tokens=image_tokens, text_tokens=text_tokens)
        beside = self.beside
        if beside is NOTHING:
            return bound
        more = beside.text_bytes + beside.images * image_tokens + (TOOLS_TOKENS if beside.tools else 0)
        return min(bound + more, context_length)

    def lost_at(self, *, takes_custom: bool, takes_sealed: bool) -> tuple[str, ...]:
        """What is lost on the way to an upstream that takes grammars, or what OpenAI sealed, or does not."""
        return tuple(
            name
            for name in self.lost
            if not (takes_custom and name.startswith("tools[") and name.endswith("].format"))
            and not (takes_sealed and name == SEALED)
        )

    def with_functions_only(self) -> "ResponsesRequest":
        """The same for an upstream that knows no tools but functions."""
        plain = copy.copy(self)
        plain.body = as_functions(self.body)
        return plain


def parse_responses(raw: Body) -> ResponsesRequest:
    """Check a request body that goes on from nothing. Raises GatewayError (400, 413) naming the first field that is
    wrong."""
    return responses_request(read_responses(raw), size=len(raw))


def read_responses(raw: Body) -> dict[str, Any]:
    """The object of a request body, its fields checked each by itself. Raises GatewayError (400, 413)."""
    told = read_object(raw)
    name_model(told)
    for name, value in told.items():
        if value is not None and (check := _CHECKS.get(name)) is not None:
            check(name, value)
    _refuse(told)
    return told


def responses_request(told: dict[str, Any], *, size: int, earlier: int = 0) -> ResponsesRequest:
    """The request of an object that was read from so many bytes; so many of its first input items were put there from
    stored responses. Raises GatewayError (400, 413) naming the first field that is wrong."""
    lost = [name for name, value in told.items() if name not in _KNOWN and not _says_nothing(name, value)]
    tools = Tools(told, lost)
    chat, earlier_messages = _chat(told, tools, lost, earlier=earlier)
    if size > MAX_TEXT_BYTES and size - media_length(chat["messages"]) > MAX_TEXT_BYTES:
        raise too_much_text()
    asked = ResponsesRequest(
        model=told["model"],
        stream=told.get("stream") is True,
        choices=1,
        body=chat,
        body_bytes=size,
        lost=tuple(dict.fromkeys(lost)),
        told=told,
        custom_tools=frozenset(tools.custom),
        earlier=earlier,
        earlier_messages=earlier_messages,
        members=tools.members,
    )
    asked.grow_as_written()
    if asked.body_bytes > max(size, MAX_TEXT_BYTES) and asked.text_bytes > MAX_TEXT_BYTES:
        raise too_much_text()  # with what was put in from stored responses
    return asked


def _says_nothing(name: str, value: Any) -> bool:
    return value is None or value in _SAID_BY_SILENCE.get(name, ())


def _refuse(told: dict[str, Any]) -> None:
    """References to state that is not here, and fields that have another name here."""
    for name, message in _STATE.items():
        if not _says_nothing(name, told.get(name)):
            raise bad_field(name, message)
    for name, place in _MOVED.items():
        if told.get(name) is not None:
            raise bad_field(name, f"{name} is a field of Chat Completions: here it is {place}.")


def _chat(told: dict[str, Any], tools: "Tools", lost: list[str], *, earlier: int) -> tuple[dict[str, Any], int]:
    """The chat, and how many of its first messages are not of this turn's input."""
    chat: dict[str, Any] = {name: told[name] for name in _SAME if told.get(name) is not None}
    chat["model"] = told["model"]
    if told.get("max_output_tokens") is not None:
        chat["max_tokens"] = told["max_output_tokens"]
    if told.get("user") is not None:
        chat["user"] = clean_name("user", told["user"], most=MAX_USER, least=0)
    if told.get("top_logprobs") or LOGPROBS in (told.get("include") or ()):
        chat |= {"logprobs": True, "top_logprobs": told.get("top_logprobs") or 0}
    chat |= _reasoning(told.get("reasoning") or {}, lost)
    chat |= _text(told.get("text") or {})
    chat |= tools.chat
    check_fields({name: value for name, value in chat.items() if name != "tool_choice"})
    chat["messages"], earlier_messages = _messages(told, lost, earlier=earlier)
    return chat, earlier_messages


def _messages(told: dict[str, Any], lost: list[str], *, earlier: int) -> tuple[list[dict[str, Any]], int]:
    given = told.get("input")
    conversation = Conversation(lost)
    if told.get("instructions"):
        conversation.add({"role": "system", "content": told["instructions"]}, "instructions")
    began = len(conversation.messages)
    if type(given) is str:
        conversation.add({"role": "user", "content": given}, "input")
    elif type(given) is list and given:
        for index, item in enumerate(given):
            if index == earlier:
                began = len(conversation.end())
            conversation.add(item, f"input[{index - earlier}]")
        if len(given) == earlier:
            began = len(conversation.end())
    else:
        raise bad_field("input", "input must be a string or a list of at least one item.")
    messages = conversation.end()
    if not messages:
        raise bad_field("input", "None of these items can be passed on to a model.")
    return messages, began


def _reasoning(reasoning: dict[str, Any], lost: list[str]) -> dict[str, Any]:
    for name in ("effort", "summary"):
        if reasoning.get(name) is not None and type(reasoning[name]) is not str:
            raise bad_field(f"reasoning.{name}", f"{name} must be a string.")
    lost += [
        f"reasoning.{name}" for name in ("mode", "context") if reasoning.get(name) not in (None, "auto", "standard")
    ]
    return {"reasoning_effort": reasoning["effort"]} if reasoning.get("effort") else {}


def _text(text: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"verbosity": text["verbosity"]} if text.get("verbosity") else {}
    wanted = text.get("format")
    if wanted is None:
        return made
    if type(wanted) is not dict or wanted.get("type") not in ("text", "json_object", "json_schema"):
        raise bad_field("text.format.type", "The format must be of the type text, json_object or json_schema.")
    if wanted["type"] == "text":
        return made
    if wanted["type"] == "json_object":
        return {**made, "response_format": {"type": "json_object"}}
    if type(wanted.get("schema")) is not dict:
        raise bad_field("text.format.schema", "A json_schema must have a schema, which is an object.")
    described = {name: wanted[name] for name in ("description", "schema") if wanted.get(name) is not None}
    described["name"] = wanted.get("name") or "answer"
    described["strict"] = wanted["strict"] if type(wanted.get("strict")) is bool else is_strict(wanted["schema"])
    return {**made, "response_format": {"type": "json_schema", "json_schema": described}}


def _list(name: str, value: Any) -> None:
    if type(value) is not list:
        raise bad_field(name, f"{name} must be a list.")


_CHECKS: Final[dict[str, Check]] = {
    "instructions": A_STRING,
    "max_output_tokens": integer_from(1),
    "max_tool_calls": integer_from(0),
    "text": AN_OBJECT,
    "tools": _list,
    "reasoning": AN_OBJECT,
    "include": check_texts,
    "store": A_BOOL,
    "top_logprobs": integer_from(0, 20),
    "previous_response_id": A_STRING,
    "truncation": A_STRING,
    "background": A_BOOL,
    "stream_options": AN_OBJECT,
}
