"""A Chat Completions request: checked, and made ready to be forwarded. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from apps.catalog.contracts import IMAGE_TOKENS, OUTPUT_LIMIT_FIELDS, SERVICE_TIERS, OfferedModel, Price, Target
from apps.gateway.dialects.chat_fields import MAX_USER, check_fields, check_messages, clean_name, name_model
from apps.gateway.dialects.large_body import Body
from apps.gateway.dialects.large_content import Content, written
from apps.gateway.dialects.media_addresses import check_media_address
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object, too_much_text
from apps.gateway.dialects.texts import TextPlace, texts_within
from apps.gateway.dialects.vendor_runs import asks_vendor, rounds, without_vendors
from apps.gateway.errors import UNSUPPORTED_MODALITY, GatewayError, bad_field
from apps.gateway.metering.token_usage import estimate_tokens
from apps.policies.guarding import Guarding

MESSAGE_TOKENS = 8
"""Role and separators of a message, for the bound on input tokens."""
TOOLS_TOKENS = 1_024
"""What vendors tell a model about using tools, beside the definitions: some hundred tokens that nobody sends."""
AUDIO_TOKENS = 64
AUDIO_BYTES_PER_TOKEN = 32
"""Of its base64 text: 8 kbit/s speech is 1 333 of these bytes and at most 32 tokens a second."""
OWN_FIELDS = ("models", "provider", "session_id", "metadata")
"""Request fields of CRUN: never forwarded."""

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

_KIND_CHARACTERS = len("data:image/")


@dataclass(slots=True)
class ChatRequest:
    """A valid request. `body` is the parsed object, which the gateway writes anew for the upstream."""

    model: str
    stream: bool
    choices: int
    body: dict[str, Any]
    body_bytes: int = 0
    """Size of the body as it came in, or as it goes out where that is more."""
    text_tokens: int | None = None
    """No more tokens than this are in its text, where somebody counted."""
    lost: tuple[str, ...] = ()
    """What of a request in another dialect has no place in `body`."""
    output_cut: int | None = None
    """What each choice may have at most, where the caller set no bound and we had to."""
    guarding: Guarding | None = None
    """What guards it and its answer; None where its organization has no guardrails."""
    pinned: tuple[str, str] | None = None
    """Provider and upstream model of the route that answered the turn before, where that is known."""
    gone_audio_tokens: int = 0
    """What audio that was let go counts for beyond what is left of it."""
    inputs: int = 1
    """How often the model's context can be read for it: more than once where its vendor runs tools."""
    asked_output: int | None = field(init=False)
    """The output tokens that the caller allows each choice; None when it set no bound."""
    asked_tier: str = field(init=False)
    """The service tier that the caller asks for; "" for the standard one, or when the upstream may choose."""
    has_unreadable_text: ClassVar[bool] = False
    content_field: ClassVar[str] = "messages"
    endpoint: ClassVar[str] = "chat/completions"
    asks_vendor: bool = field(init=False)
    """Whether its vendor is to do something by itself, for a fee of its own."""
    has_parts: bool = field(init=False)
    """Whether any content is a list of parts: only then there can be media."""

    def __post_init__(self) -> None:
        body = self.body
        short, long = body.get("max_tokens"), body.get("max_completion_tokens")
        self.asked_output = long if short is None else short if long is None else max(short, long)
        tier = body.get("service_tier")
        self.asked_tier = tier if tier in SERVICE_TIERS else ""
        self.asks_vendor = asks_vendor(body)
        self.has_parts = any(isinstance(message.get("content"), list) for message in body["messages"])

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that does not chat, or does not take a modality of the messages."""
        if model.only_embeds:
            message = f"The model {model.id} gives embeddings only: ask it at /embeddings."
            raise GatewayError(UNSUPPORTED_MODALITY, message, param="model")
        check_modalities(self, model)
        if self.asks_vendor:
            self.inputs = rounds(self.body, model)

    def for_openai(self, upstream_model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """(the body for who speaks Chat Completions, what is lost by that). A chat that came as one is as it came."""
        return self.body, ()

    def can_open(self, sealed: str, target: Target) -> bool:
        """Whether a route can open what an account of its vendor's sealed, as far as that is known."""
        return True

    def input_estimate(self) -> int:
        """Tokens of all text in the messages, by our own estimate."""
        return estimate_tokens(sum(len(text.encode()) for text in _texts(self.body["messages"])))

    @property
    def images(self) -> int:
        """How many images the request brings."""
        return self._images_of_messages()

    def _images_of_messages(self) -> int:
        if not self.has_parts:
            return 0
        return sum(part.get("type") == "image_url" for _, part in _parts(self.body["messages"]))

    def cut_output(self, tokens: int) -> None:
        """Let each choice have no more than so many output tokens. Only for a request whose caller set no bound."""
        self.output_cut = tokens

    def longest_text(self) -> str:
        """All text of its messages, which must fit into the model's context together."""
        return "".join(_texts(self.body["messages"]))

    def countable_text(self) -> str:
        """Everything in it that is billed as text, and its JSON, which is more."""
        return self._written_text().decode()

    def text_places(self) -> Iterator[TextPlace]:
        """All text in it that goes to an upstream, where it stands."""
        return texts_within(self.body)

    def texts_changed(self) -> None:
        """Texts were put in place of others: its size is what is written now."""
        self.body_bytes = 0
        self.grow_as_written()

    def let_go(self) -> None:
        """Its media are needed no more: nobody else is asked. What was counted of them stays as it was.

        What others have of the body stays whole."""
        freed = 0
        messages = []
        for message in self.body["messages"]:
            content = message.get("content")
            if isinstance(content, list):
                shorter = [_without_data(part) for part in content]
                self.gone_audio_tokens += sum(map(_audio_tokens, content)) - sum(map(_audio_tokens, shorter))
                freed += sum(map(_length_in, content)) - sum(map(_length_in, shorter))
                message = {**message, "content": shorter}
            messages.append(message)
        self.body = {**self.body, "messages": messages}
        self.body_bytes -= freed

    def _written_text(self) -> bytes:
        """The body without media as an upstream gets it."""
        if not self.has_parts:
            return orjson.dumps(self.body)
        media = {id(part) for _, part in _parts(self.body["messages"]) if part.get("type") not in _TEXT_PARTS}
        messages = [
            {**message, "content": [part for part in message["content"] if id(part) not in media]}
            if isinstance(message.get("content"), list)
            else message
            for message in self.body["messages"]
        ]
        return orjson.dumps({**self.body, "messages": messages})

    def grow_as_written(self) -> None:
        """Count bytes that come with writing: 1e15 becomes 1000000000000000.0, of which a vendor bills every digit."""
        media_bytes = media_length(self.body["messages"]) if self.has_parts else 0
        self.body_bytes = max(self.body_bytes, media_bytes + len(self._written_text()))

    @property
    def text_bytes(self) -> int:
        """The size of its body without media."""
        return self.body_bytes - (media_length(self.body["messages"]) if self.has_parts else 0)

    def input_bound(
        self, context_length: int, *, image_tokens: int = IMAGE_TOKENS, text_tokens: int | None = None
    ) -> int:
        """More input tokens than this cannot be billed: no token is shorter than a byte of what was sent.

        Tool definitions and schemas are input too, so it is the whole body that counts, without its media, which have
        bounds of their own: that of an image is the model's. Once it was counted (`text_tokens`) there is a closer
        bound. What a vendor's tool finds may fill the context. Source of the figures: docs/admission.md."""
        if self.inputs > 1:
            return context_length * self.inputs
        if any(message.get("audio") for message in self.body["messages"]):
            return context_length  # an earlier answer that the upstream has and only its id names
        media_tokens, text = self.gone_audio_tokens, self.body_bytes
        for _, part in _parts(self.body["messages"]) if self.has_parts else ():
            kind = part.get("type")
            if kind == "image_url" and _may_be_image(part):
                media_tokens += image_tokens
            elif kind == "input_audio" and _is_here(part):
                media_tokens += AUDIO_TOKENS + _audio_tokens(part)
            elif kind not in _TEXT_PARTS:
                return context_length
            text -= _length_in(part)
        counted = self.text_tokens if text_tokens is None else text_tokens
        if counted is not None:
            text = min(text, counted)
        has_tools = self.body.get("tools") or self.body.get("functions")
        unseen = MESSAGE_TOKENS * len(self.body["messages"]) + (TOOLS_TOKENS if has_tools else 0)
        return min(text + media_tokens + unseen, context_length)


def parse_chat(raw: Body) -> ChatRequest:
    """Check a request body. Raises GatewayError (400, 413) naming the first field that is wrong."""
    body = read_object(raw)
    model = name_model(body)
    check_messages(body.get("messages"))
    if len(raw) > MAX_TEXT_BYTES and len(raw) - media_length(body["messages"]) > MAX_TEXT_BYTES:
        raise too_much_text()
    check_fields(body)
    if body.get("user") is not None:
        body["user"] = clean_name("user", body["user"], most=MAX_USER, least=0)
    chat = ChatRequest(
        model=model,
        stream=body.get("stream") is True,
        choices=body.get("n") or 1,
        body=body,
        body_bytes=len(raw),
    )
    chat.grow_as_written()
    return chat


def check_modalities(chat: ChatRequest, model: OfferedModel) -> None:
    """400 naming the first modality that the model does not take."""
    for place, part in _parts(chat.body["messages"]) if chat.has_parts else ():
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
        if kind in _MEDIA_FIELDS:
            check_media_address(place, part)


def check_service_tier(chat: ModelRequest, model: OfferedModel, price: Price) -> None:
    """400 for a tier that the model has no price for: what is not priced is not sold."""
    asked = chat.asked_tier
    if asked and all(variant.service_tier != asked for variant in price.variants):
        raise bad_field("service_tier", f"The model {model.id} is not offered at the service tier {asked!r}.")


def body_for_upstream(
    chat: ChatRequest,
    model: OfferedModel,
    upstream_model: str,
    *,
    output_limit_field: str = "max_tokens",
    vendor_runs: tuple[str, ...] = (),
) -> Content:
    """The request as the upstream gets it: its own model name, output capped, usage asked for, our fields gone.

    What the vendor is to do by itself goes only where the operator lets it (`vendor_runs`), and has a price for that.
    Raises GatewayError (400) for a tool that is forced and may not run.
    An output that we had to cut is capped in `output_limit_field`; a cap of the caller's stays where it was."""
    body = {field: value for field, value in chat.for_openai(upstream_model)[0].items() if field not in OWN_FIELDS}
    if chat.asks_vendor:
        body, _ = without_vendors(body, vendor_runs)
    body["model"] = upstream_model
    for name in OUTPUT_LIMIT_FIELDS:
        if body.get(name) is not None:
            body[name] = min(body[name], model.max_output_tokens)
    if chat.output_cut is not None:
        body = {field: value for field, value in body.items() if field not in OUTPUT_LIMIT_FIELDS}
        body[output_limit_field] = chat.output_cut
    if chat.stream:
        # Nothing else of the caller's: vLLM's continuous_usage_stats would have usage in every chunk.
        body["stream_options"] = {"include_usage": True}
    else:
        body.pop("stream_options", None)  # OpenAI refuses it there
    return written(body, size=chat.body_bytes)


def dropped_options(chat: ChatRequest, upstream_model: str, *, vendor_runs: tuple[str, ...] = ()) -> tuple[str, ...]:
    """What `body_for_upstream` leaves out of a request beside our own fields."""
    options = chat.body.get("stream_options")
    lost = chat.for_openai(upstream_model)[1]
    if chat.asks_vendor:
        lost += without_vendors(chat.body, vendor_runs)[1]
    if not options:
        return lost
    return (*lost, *(f"stream_options.{name}" for name in options if name != "include_usage" or not chat.stream))


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


def media_length(messages: list[dict[str, Any]]) -> int:
    """The size of all media in these messages: base64 text, mostly."""
    return sum(_length_in(part) for _, part in _parts(messages))


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


def _length_in(part: dict[str, Any]) -> int:
    """The size of the media in a part: base64 text, mostly."""
    for kind, place in _MEDIA_FIELDS.items():
        if part.get("type") == kind:
            return len(_text_in(part.get(kind), place))
    return 0


def _audio_tokens(part: dict[str, Any]) -> int:
    """What the length of a part counts for, where it is audio."""
    return _length_in(part) // AUDIO_BYTES_PER_TOKEN if part.get("type") == "input_audio" else 0


def _without_data(part: dict[str, Any]) -> dict[str, Any]:
    """A part with media, with as much of them as their kind can be told by; any other one as it is."""
    kind = part.get("type")
    place = _MEDIA_FIELDS.get(kind) if isinstance(kind, str) else None
    if kind is None or place is None or not (text := _text_in(part.get(kind), place)):
        return part
    if kind == "input_audio" and not _is_here(part):
        return part  # an address, which is short
    return {"type": kind, kind: {place: text[:_KIND_CHARACTERS]}}


def _may_be_image(part: dict[str, Any]) -> bool:
    """Whether the address of an image does not say itself that it is something else."""
    url = _text_in(part.get("image_url"), "url")
    return url[:5].lower() != "data:" or url[5:_KIND_CHARACTERS].lower() == "image/"


def _is_here(audio: dict[str, Any]) -> bool:
    """Whether audio comes with the request. An address may lead to any length of it."""
    data = _text_in(audio.get("input_audio"), "data")
    return bool(data) and "://" not in data


def _text_in(holder: object, field: str) -> str:
    text = holder.get(field) if isinstance(holder, dict) else None
    return text if isinstance(text, str) else ""
