"""A request for embeddings: checked, and made ready to be forwarded. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson

from apps.catalog.contracts import IMAGE_TOKENS, SERVICE_TIERS, OfferedModel
from apps.gateway.dialects.chat import OWN_FIELDS
from apps.gateway.dialects.chat_fields import MAX_USER, check_fields, clean_name, name_model
from apps.gateway.dialects.large_body import Body
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object, too_much_text
from apps.gateway.dialects.texts import TextPlace, texts_within
from apps.gateway.errors import CONTEXT_TOO_LONG, UNSUPPORTED_MODALITY, GatewayError, bad_field
from apps.gateway.metering.token_usage import estimate_tokens
from apps.policies.guarding import Guarding

MAX_INPUTS: Final = 2_048
"""OpenAI's own limit."""
MAX_TOKEN_ID: Final = 2**31 - 1
MAX_DIMENSIONS: Final = 65_536
ENCODINGS: Final = ("float", "base64")
UNSEEN_TOKENS: Final = 8
"""What a model puts around each input, for the bound on input tokens."""
_CHECKED_AS_THERE: Final = ("stream", "service_tier", "metadata", "session_id", "safety_identifier")
"""Fields that are what they are in Chat Completions."""
_KNOWN: Final = frozenset((
    "model", "input", "encoding_format", "dimensions", "user", "stream_options", *_CHECKED_AS_THERE, *OWN_FIELDS,
))  # fmt: skip
"""Fields in which there is nothing to be billed. What else goes through may be an instruction."""
_NOT_FORWARDED: Final = frozenset((*OWN_FIELDS, "stream", "stream_options"))


@dataclass(slots=True)
class EmbeddingsRequest:
    """A valid request. Its inputs are all texts, or all lists of token ids."""

    model: str
    body: dict[str, Any]
    body_bytes: int
    texts: list[str]
    token_lists: list[list[int]]
    text_tokens: int | None = None
    """No more tokens than this are in its texts, where somebody counted."""
    guarding: Guarding | None = None
    """What guards it; None where its organization has no guardrails."""
    inputs: int = field(init=False)
    asked_tier: str = field(init=False)
    ids: int = field(init=False)
    """How many token ids it brings: each is one token."""
    unseen: int = field(init=False)
    """No more tokens than this come to each input from elsewhere."""

    stream: ClassVar[bool] = False
    choices: ClassVar[int] = 1
    asked_output: ClassVar[int | None] = 0
    images: ClassVar[int] = 0
    pinned: ClassVar[tuple[str, str] | None] = None
    content_field: ClassVar[str] = "input"
    endpoint: ClassVar[str] = "embeddings"

    def __post_init__(self) -> None:
        self.inputs = len(self.texts) or len(self.token_lists)
        self.ids = sum(map(len, self.token_lists))
        tier = self.body.get("service_tier")
        self.asked_tier = tier if tier in SERVICE_TIERS else ""
        of_vendor = {name: value for name, value in self.body.items() if name not in _KNOWN}
        self.unseen = UNSEEN_TOKENS + (len(orjson.dumps(of_vendor)) if of_vendor else 0)

    @property
    def text_bytes(self) -> int:
        """No fewer bytes than its texts have."""
        return self.body_bytes if self.texts else 0

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that gives no embeddings, or for token ids that are too many for it."""
        if "embeddings" not in model.output_modalities:
            message = f"The model {model.id} gives no embeddings; it gives: {', '.join(model.output_modalities)}."
            raise GatewayError(UNSUPPORTED_MODALITY, message, param="model")
        for index, ids in enumerate(self.token_lists):
            if len(ids) > model.context_length:
                message = f"An input has {len(ids):,} tokens; the model {model.id} takes {model.context_length:,}."
                raise GatewayError(CONTEXT_TOO_LONG, message, param=f"input[{index}]" if self.inputs > 1 else "input")

    def input_bound(
        self, context_length: int, *, image_tokens: int = IMAGE_TOKENS, text_tokens: int | None = None
    ) -> int:
        """No token of a text is shorter than a byte of what was sent; once it was counted there is a closer bound."""
        counted = self.text_tokens if text_tokens is None else text_tokens
        text = self.text_bytes if counted is None else min(self.text_bytes, counted)
        return min(self.ids + text + self.unseen * self.inputs, context_length * self.inputs)

    def input_estimate(self) -> int:
        """Token ids as they are, and texts by our own estimate."""
        return self.ids + estimate_tokens(sum(len(text.encode()) for text in self.texts))

    def longest_text(self) -> str:
        """The longest of its texts: each must fit into the model's context alone."""
        return max(self.texts, key=len, default="")

    def countable_text(self) -> str:
        """All of its texts."""
        return "\n".join(self.texts)

    def text_places(self) -> Iterator[TextPlace]:
        """All text in it that goes to an upstream, where it stands."""
        return texts_within(self.body)

    @property
    def has_unreadable_text(self) -> bool:
        """Token ids are text that only the model's vocabulary can read."""
        return bool(self.token_lists)

    def texts_changed(self) -> None:
        """Texts were put in place of others."""
        given = self.body["input"]
        if self.texts:
            self.texts = [given] if isinstance(given, str) else given
        self.body_bytes = len(orjson.dumps(self.body))

    def cut_output(self, tokens: int) -> None:
        """There is no output to be cut."""

    def for_upstream(self, upstream_model: str) -> bytes:
        """The body as an upstream of OpenAI's dialect gets it: its own model name, our fields gone."""
        body = {name: value for name, value in self.body.items() if name not in _NOT_FORWARDED}
        body["model"] = upstream_model
        return orjson.dumps(body)


def parse_embeddings(raw: Body) -> EmbeddingsRequest:
    """Check a request body. Raises GatewayError (400, 413) naming the first field that is wrong."""
    if len(raw) > MAX_TEXT_BYTES:
        raise too_much_text()
    body = read_object(raw)
    model = name_model(body)
    texts, token_lists = _inputs(body.get("input"))
    if body.get("messages") is not None:  # vLLM would embed these, and not the input that everything is counted by
        raise bad_field("messages", "messages cannot be embedded: give their text as input.")
    check_fields({name: body[name] for name in _CHECKED_AS_THERE if name in body})
    if body.get("stream"):
        raise bad_field("stream", "Embeddings come in one piece: they cannot be streamed.")
    encoding, dimensions = body.get("encoding_format"), body.get("dimensions")
    if encoding is not None and encoding not in ENCODINGS:
        raise bad_field("encoding_format", f"encoding_format must be one of: {', '.join(ENCODINGS)}.")
    if dimensions is not None and (type(dimensions) is not int or not 1 <= dimensions <= MAX_DIMENSIONS):
        raise bad_field("dimensions", f"dimensions must be an integer from 1 to {MAX_DIMENSIONS}.")
    if body.get("user") is not None:
        body["user"] = clean_name("user", body["user"], most=MAX_USER, least=0)
    return EmbeddingsRequest(model, body, len(raw), texts, token_lists)


def _inputs(value: object) -> tuple[list[str], list[list[int]]]:
    """The texts, or the lists of token ids: one of the two is empty."""
    if type(value) is str:
        return [_text("input", value)], []
    if type(value) is not list or not value:
        raise bad_field("input", "input must be a string, a list of strings, or token ids: a list, or a list of lists.")
    first = type(value[0])
    if first is int:
        return [], [_token_ids("input", value)]
    if len(value) > MAX_INPUTS:
        raise bad_field("input", f"input may have {MAX_INPUTS:,} items at most.")
    if first is list:
        return [], [_token_ids(f"input[{index}]", ids) for index, ids in enumerate(value)]
    return [_text(f"input[{index}]", text) for index, text in enumerate(value)], []


def _text(place: str, value: Any) -> str:
    if type(value) is not str:
        raise bad_field(place, "The items of input must be all strings, or all token ids, or all lists of token ids.")
    if not value:
        raise bad_field(place, "An input must not be empty.")
    return value


def _token_ids(place: str, value: Any) -> list[int]:
    if type(value) is not list or not value:
        raise bad_field(place, "A list of token ids must have at least one.")
    if set(map(type, value)) != {int} or min(value) < 0 or max(value) > MAX_TOKEN_ID:
        raise bad_field(place, f"Token ids must be integers from 0 to {MAX_TOKEN_ID}.")
    return value
