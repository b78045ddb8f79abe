"""The Chat Completions request as the sandbox reads it: types, bounds, and errors that name the field."""

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from crun.sandbox.errors import ApiError, bad_request

Milliseconds = Annotated[int, Meta(ge=0, le=600_000)]
Count = Annotated[int, Meta(ge=0, le=10_000_000)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Asked = TypeVar("Asked", bound=Struct)


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    """The request field `sandbox`: how this one answer is to be given."""

    first_byte_delay_ms: Milliseconds = 0
    delay_ms: Milliseconds = 0
    chunk_delay_ms: Milliseconds = 0
    chunks: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    output: str | None = None
    cached_tokens: Count = 0
    reasoning_tokens: Count = 0
    usage: dict[str, Any] | None = None
    service_tier: Annotated[str, Meta(max_length=20)] = "default"


class TextPart(Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class RefusalPart(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class ImageUrl(Struct, frozen=True):
    url: Annotated[str, Meta(min_length=1)]


class ImagePart(Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class AudioPart(Struct, frozen=True, tag_field="type", tag="input_audio"):
    input_audio: dict[str, Any]


class FilePart(Struct, frozen=True, tag_field="type", tag="file"):
    file: dict[str, Any]


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart


class Message(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None


class FunctionSpec(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    parameters: dict[str, Any] | None = None


class Tool(Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionSpec


class FunctionName(Struct, frozen=True):
    name: str


class NamedTool(Struct, frozen=True, tag_field="type", tag="function"):
    function: FunctionName


class TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    pass


class NamedSchema(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any] = {}


class JsonSchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    json_schema: NamedSchema


class StreamOptions(Struct, frozen=True):
    include_usage: bool | None = None


class ChatRequest(Struct, frozen=True):
    """What the sandbox uses of a request; every other field is let through unread, as lenient vendors do."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=8)] | None = None
    max_tokens: AtLeastOne | None = None
    max_completion_tokens: AtLeastOne | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    user: str | None = None
    sandbox: Script = Script()

    @property
    def includes_usage(self) -> bool:
        """A stream ends with a usage chunk only when it was asked for."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def word_limit(self) -> int | None:
        """The lower of `max_tokens` and `max_completion_tokens`, None when neither is given."""
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return min(limits, default=None)


_decoder = msgspec.json.Decoder(ChatRequest)
_FIELD_IN_ERROR = re.compile(r"^(?P<message>.*?) - at `(?:key in )?\$(?P<path>[^`]*)`$", re.DOTALL)
_MISSING_OR_UNKNOWN = re.compile(r"(?:missing required|contains unknown) field `(?P<name>[^`]*)`")


def read_chat(body: bytes) -> ChatRequest:
    """The request in `body`. Raises ApiError 400 with `param` naming the field."""
    return decoded(_decoder, body)


def decoded(decoder: msgspec.json.Decoder[Asked], body: bytes) -> Asked:
    """The request in `body`. Raises ApiError 400 with `param` naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise field_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The request body is not valid JSON: {error}", code="invalid_json") from None


def field_error(text: str, *, within: str = "") -> ApiError:
    """What msgspec says of a request, or of a part of it, as an error that names the field."""
    found = _FIELD_IN_ERROR.match(text)
    message, path = (found["message"], found["path"]) if found else (text, "")
    named = _MISSING_OR_UNKNOWN.search(message)
    param = within + (f"{path}.{named['name']}" if named else path)
    param = param.lstrip(".")
    return bad_request(f"{message}: {param}" if param else message, param=param or None)
