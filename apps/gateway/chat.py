"""A Chat Completions request: checked, and made ready to be forwarded. Pure."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from apps.catalog.contracts import OUTPUT_LIMIT_FIELDS, SERVICE_TIERS, OfferedModel, Price
from apps.gateway.errors import BAD_REQUEST, BODY_TOO_LARGE, UNSUPPORTED_MODALITY, GatewayError, bad_field
from apps.gateway.token_usage import estimate_tokens

MAX_DEPTH = 64
MAX_TEXT_BYTES = 2 << 20
"""A body has no more than this beside its media; with them the door's own limit counts."""
MAX_CHOICES = 8
MAX_MODEL_ID = 128
MESSAGE_TOKENS = 8
"""Role and separators of a message, for the bound on input tokens."""
IMAGE_TOKENS = 8_192
AUDIO_TOKENS = 64
AUDIO_BYTES_PER_TOKEN = 32
"""Of its base64 text: 8 kbit/s speech is 1 333 of these bytes and at most 32 tokens a second."""
OWN_FIELDS = ("models", "provider", "session_id", "metadata")
"""Request fields of CRUN: never forwarded."""

_TIERS = ("auto", "default", "flex", "priority")
_TEXT_PARTS = ("text", "refusal", "thinking")
_MODALITY_OF_PART = {
    **dict.fromkeys(_TEXT_PARTS, "text"),
    "image_url": "image",
    "input_audio": "audio",
    "file": "file",
    "video_url": "video",
}

_MEDIA_FIELDS = {"image_url": "url", "input_audio": "data", "file": "file_data", "video_url": "url"}
"""Kind of a content part -> where its media stand, in an object under the name of the kind."""


@dataclass(slots=True)
class ChatRequest:
    """A valid request. `body` is the parsed object, which the gateway writes anew for the upstream."""

    model: str
    stream: bool
    choices: int
    body: dict[str, Any]
    body_bytes: int = 0
    """Size of the body as it came in."""
    text_tokens: int | None = None
    """No more tokens than this are in its text, where somebody counted."""
    output_cut: int | None = None
    """What each choice may have at most, where the caller set no bound and we had to."""

    def input_estimate(self) -> int:
        """Tokens of all text in the messages, by our own estimate."""
        return estimate_tokens(sum(len(text.encode()) for text in _texts(self.body["messages"])))

    @property
    def asked_output(self) -> int | None:
        """The output tokens that the caller allows each choice; None when it set no bound."""
        asked = [self.body.get(field) for field in OUTPUT_LIMIT_FIELDS]
        return max((limit for limit in asked if limit is not None), default=None)

    @property
    def asked_tier(self) -> str:
        """The service tier that the caller asks for; "" for the standard one, or when the upstream may choose."""
        tier = self.body.get("service_tier")
        return tier if tier in SERVICE_TIERS else ""

    @property
    def images(self) -> int:
        """How many images the request brings."""
        return sum(part.get("type") == "image_url" for _, part in _parts(self.body["messages"]))

    def cut_output(self, tokens: int) -> None:
        """Let each choice have no more than so many output tokens. Only for a request whose caller set no bound."""
        self.output_cut = tokens

    def text(self) -> str:
        """All text of its messages."""
        return "".join(_texts(self.body["messages"]))

    def countable_text(self) -> str:
        """Everything in it that is billed as text, and its JSON, which is more."""
        media = {id(part) for _, part in _parts(self.body["messages"]) if part.get("type") not in _TEXT_PARTS}
        messages = [
            {**message, "content": [part for part in message["content"] if id(part) not in media]}
            if isinstance(message.get("content"), list)
            else message
            for message in self.body["messages"]
        ]
        return orjson.dumps({**self.body, "messages": messages}).decode()

    @property
    def text_bytes(self) -> int:
        """The size of its body without media."""
        return self.body_bytes - _all_media_length(self.body["messages"])

    def input_bound(self, context_length: int, *, text_tokens: int | None = None) -> int:
        """More input tokens than this cannot be billed: no token is shorter than a byte of what was sent.

        Tool definitions and schemas are input too, so it is the whole body that counts, without its media, which have
        bounds of their own. Once it was counted (`text_tokens`) there is a closer bound. Source of the figures:
        docs/admission.md."""
        if any(message.get("audio") for message in self.body["messages"]):
            return context_length  # an earlier answer that the upstream has and only its id names
        media_tokens, text = 0, self.body_bytes
        for _, part in _parts(self.body["messages"]):
            kind = part.get("type")
            if kind == "image_url":
                media_tokens += IMAGE_TOKENS
            elif kind == "input_audio" and _is_here(part):
                media_tokens += AUDIO_TOKENS + _media_length(part) // AUDIO_BYTES_PER_TOKEN
            elif kind not in _TEXT_PARTS:
                return context_length
            text -= _media_length(part)
        counted = self.text_tokens if text_tokens is None else text_tokens
        if counted is not None:
            text = min(text, counted)
        return min(text + media_tokens + MESSAGE_TOKENS * len(self.body["messages"]), context_length)


def parse_chat(raw: bytes) -> ChatRequest:
    """Check a request body. Raises GatewayError (400) naming the first field that is wrong."""
    body = _parse_object(raw)
    model = body.get("model")
    if not isinstance(model, str) or not 1 <= len(model) <= MAX_MODEL_ID:
        raise bad_field("model", f"model must be a string of 1 to {MAX_MODEL_ID} characters.")
    _check_messages(body.get("messages"))
    if len(raw) > MAX_TEXT_BYTES and len(raw) - _all_media_length(body["messages"]) > MAX_TEXT_BYTES:
        raise GatewayError(BODY_TOO_LARGE, f"A request may have {MAX_TEXT_BYTES >> 20} MB without its media.")
    for field, check in _CHECKS.items():
        value = body.get(field)
        if value is not None:
            check(field, value)
    return ChatRequest(
        model=model,
        stream=body.get("stream") is True,
        choices=body.get("n") or 1,
        body=body,
        body_bytes=len(raw),
    )


def check_modalities(chat: ChatRequest, model: OfferedModel) -> None:
    """400 naming the first modality that the model does not take."""
    for place, part in _parts(chat.body["messages"]):
        kind = part.get("type")
        modality = _MODALITY_OF_PART.get(kind) if isinstance(kind, str) else None
        if modality is None:
            known = ", ".join(_MODALITY_OF_PART)
            raise bad_field(f"{place}.type", f"Unknown content part {kind!r}; known are: {known}.")
        if modality not in model.input_modalities:
            takes = ", ".join(model.input_modalities)
            raise GatewayError(
                UNSUPPORTED_MODALITY,
                f"The model {model.id} does not take {modality} input; it takes: {takes}.",
                param=place,
            )


def check_service_tier(chat: ChatRequest, model: OfferedModel, price: Price) -> None:
    """400 for a tier that the model has no price for: what is not priced is not sold."""
    asked = chat.asked_tier
    if asked and all(variant.service_tier != asked for variant in price.variants):
        raise bad_field("service_tier", f"The model {model.id} is not offered at the service tier {asked!r}.")


def body_for_upstream(
    chat: ChatRequest, model: OfferedModel, upstream_model: str, *, output_limit_field: str = "max_tokens"
) -> bytes:
    """The request as the upstream gets it: its own model name, output capped, usage asked for, our fields gone.

    An output that we had to cut is capped in `output_limit_field`; a cap of the caller's stays where it was."""
    body = {field: value for field, value in chat.body.items() if field not in OWN_FIELDS}
    body["model"] = upstream_model
    for field in OUTPUT_LIMIT_FIELDS:
        if body.get(field) is not None:
            body[field] = min(body[field], model.max_output_tokens)
    if chat.output_cut is not None:
        body = {field: value for field, value in body.items() if field not in OUTPUT_LIMIT_FIELDS}
        body[output_limit_field] = chat.output_cut
    if chat.stream:
        # Nothing else of the caller's: vLLM's continuous_usage_stats would have usage in every chunk.
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


def _parse_object(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise GatewayError(BAD_REQUEST, f"The request body is not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise GatewayError(BAD_REQUEST, "The request body must be a JSON object.")
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _is_too_deep(body):
        raise GatewayError(BAD_REQUEST, f"The request body is nested deeper than {MAX_DEPTH} levels.")
    return body


def _is_too_deep(body: object) -> bool:
    level: list[object] = [body]
    for _ in range(MAX_DEPTH + 1):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return True


def _children(item: object) -> Iterable[object]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise bad_field("messages", "messages must be a list with at least one message.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise bad_field(f"messages[{index}]", "A message must be an object.")
        if not isinstance(message.get("role"), str):
            raise bad_field(f"messages[{index}].role", "A message must have a role, which is a string.")
        content = message.get("content")
        if content is None or isinstance(content, str):
            continue
        if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
            raise bad_field(f"messages[{index}].content", "content must be a string or a list of content parts.")


def _parts(messages: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All parts of all messages with their places. Whose message it is does not matter: the caller writes that too."""
    for index, message in enumerate(messages):
        content = message.get("content")
        if isinstance(content, list):
            for position, part in enumerate(content):
                place = f"messages[{index}].content[{position}]"
                yield place, part
                thoughts = part.get("thinking")
                if isinstance(thoughts, list):
                    yield from ((f"{place}.thinking", thought) for thought in thoughts if isinstance(thought, dict))


def _all_media_length(messages: list[dict[str, Any]]) -> int:
    return sum(_media_length(part) for _, part in _parts(messages))


def _texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            for part in content:
                text = part.get("text")
                if isinstance(text, str):
                    yield text


def _media_length(part: dict[str, Any]) -> int:
    """The size of the media in a part: base64 text, mostly."""
    for kind, field in _MEDIA_FIELDS.items():
        if part.get("type") == kind:
            return len(_text_in(part.get(kind), field))
    return 0


def _is_here(audio: dict[str, Any]) -> bool:
    """Whether audio comes with the request. An address may lead to any length of it."""
    data = _text_in(audio.get("input_audio"), "data")
    return bool(data) and "://" not in data


def _text_in(holder: object, field: str) -> str:
    text = holder.get(field) if isinstance(holder, dict) else None
    return text if isinstance(text, str) else ""


def _number(low: float, high: float) -> Callable[[str, Any], None]:
    def check(field: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise bad_field(field, f"{field} must be a number from {low:g} to {high:g}.")

    return check


def _integer(low: int, high: int | None = None) -> Callable[[str, Any], None]:
    bounds = f"of {low} or more" if high is None else f"from {low} to {high}"

    def check(field: str, value: Any) -> None:
        if type(value) is not int or value < low or (high is not None and value > high):
            raise bad_field(field, f"{field} must be an integer {bounds}.")

    return check


def _instance(*types: type, named: str) -> Callable[[str, Any], None]:
    def check(field: str, value: Any) -> None:
        if not isinstance(value, types):
            raise bad_field(field, f"{field} must be {named}.")

    return check


def _check_tier(field: str, value: Any) -> None:
    if value not in _TIERS:
        raise bad_field(field, f"{field} must be one of: {', '.join(_TIERS)}.")


def _check_stop(field: str, value: Any) -> None:
    is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
    if not isinstance(value, str) and not is_list:
        raise bad_field(field, "stop must be a string or a list of strings.")


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "n": _integer(1, MAX_CHOICES),
    "max_tokens": _integer(1),
    "max_completion_tokens": _integer(1),
    "stream": _instance(bool, named="true or false"),
    "stream_options": _instance(dict, named="an object"),
    "response_format": _instance(dict, named="an object"),
    "tools": _instance(list, named="a list"),
    "tool_choice": _instance(str, dict, named="a string or an object"),
    "service_tier": _check_tier,
    "stop": _check_stop,
    "user": _instance(str, named="a string"),
}
