"""The request of the Responses API as the sandbox reads it, and the chat that it is answered as."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from crun.sandbox.chat import (
    Asked,
    AtLeastOne,
    ChatRequest,
    FunctionName,
    FunctionSpec,
    ImagePart,
    ImageUrl,
    JsonObjectFormat,
    JsonSchemaFormat,
    Message,
    NamedSchema,
    NamedTool,
    Part,
    RefusalPart,
    Script,
    TextFormat,
    TextPart,
    Tool,
    decoded,
    field_error,
)
from crun.sandbox.chat import FilePart as ChatFilePart
from crun.sandbox.errors import ApiError, bad_request
from crun.sandbox.responses_rendering import SEAL, ResponsesWriter

Item = dict[str, Any]
ENCRYPTED = "reasoning.encrypted_content"


class _InputText(Struct, frozen=True, tag_field="type", tag="input_text"):
    text: str


class _OutputText(Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str


class _Refusal(Struct, frozen=True, tag_field="type", tag="refusal"):
    refusal: str


class _InputImage(Struct, frozen=True, tag_field="type", tag="input_image"):
    image_url: Annotated[str, Meta(min_length=1)]


class _InputFile(Struct, frozen=True, tag_field="type", tag="input_file"):
    filename: str | None = None


_Content = str | list[_InputText | _OutputText | _Refusal | _InputImage | _InputFile]


class _InputMessage(Struct, frozen=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content


class _Result(Struct, frozen=True):
    call_id: str
    output: _Content


class _Call(Struct, frozen=True):
    call_id: str
    name: str
    arguments: str


class _Thought(Struct, frozen=True):
    summary: list[dict[str, Any]]
    encrypted_content: str | None = None


class _FunctionTool(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    parameters: dict[str, Any] | None = None


class _NamedFunction(Struct, frozen=True, tag_field="type", tag="function"):
    name: str


class _TextFormat(Struct, frozen=True, tag_field="type", tag="text"):
    pass


class _ObjectFormat(Struct, frozen=True, tag_field="type", tag="json_object"):
    pass


class _SchemaFormat(Struct, frozen=True, tag_field="type", tag="json_schema"):
    name: Annotated[str, Meta(min_length=1, max_length=64)]
    schema: dict[str, Any]


class _Text(Struct, frozen=True):
    format: _TextFormat | _ObjectFormat | _SchemaFormat | None = None


class _Reasoning(Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(Struct, frozen=True):
    """What the sandbox uses of a request; every other field is let through unread, as lenient vendors do."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    input: str | Annotated[list[Item], Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: AtLeastOne | None = None
    tools: list[Item] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedFunction | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    user: str | None = None
    sandbox: Script = Script()

    @property
    def wants_summary(self) -> bool:
        """Whether a thought is told in words."""
        return self.reasoning is not None and self.reasoning.summary is not None

    @property
    def wants_seal(self) -> bool:
        """Whether a thought comes with what it is sent back by."""
        return self.include is not None and ENCRYPTED in self.include

    @property
    def functions(self) -> list[Item]:
        """The tools that the sandbox can call. Vendors' own tools are nothing to it."""
        return [tool for tool in self.tools or () if tool.get("type") == "function"]


_decoder = msgspec.json.Decoder(ResponsesRequest)
_OF_CHAT = {
    re.compile(r"messages\b.*"): "input",
    re.compile(r"response_format\.json_schema\b"): "text.format",
}
"""What answers call a field -> its name here."""


def read_responses(body: bytes) -> ResponsesRequest:
    """The request in `body`. Raises ApiError 400 with `param` naming the field."""
    asked = decoded(_decoder, body)
    if asked.previous_response_id is not None:
        text = f"Previous response with id '{asked.previous_response_id}' not found: the sandbox stores none."
        raise bad_request(text, param="previous_response_id", code="previous_response_not_found")
    if asked.conversation is not None:
        raise ApiError(404, "The sandbox keeps no conversations.", param="conversation")
    return asked


def chat_of(asked: ResponsesRequest) -> ChatRequest:
    """The chat that says the same. Raises ApiError 400 for an item or a tool that is none."""
    messages = [Message("system", asked.instructions)] if asked.instructions else []
    if isinstance(asked.input, str):
        messages.append(Message("user", asked.input))
    else:
        for index, item in enumerate(asked.input):
            messages += _messages(item, f"input[{index}]")
    return ChatRequest(
        model=asked.model,
        messages=messages or [Message("user", "")],
        stream=asked.stream,
        max_tokens=asked.max_output_tokens,
        tools=[_tool(tool, f"tools[{index}]") for index, tool in enumerate(asked.functions)],
        tool_choice=_choice(asked.tool_choice),
        response_format=_format(asked.text),
        user=asked.user,
        sandbox=asked.sandbox,
    )


def writer_of_responses(asked: ResponsesRequest, created: int) -> ResponsesWriter:
    """For an answer at `created` (unix seconds)."""
    tools = asked.functions
    begun = {
        "created_at": created,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": {},
        "model": asked.model,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": msgspec.to_builtins(asked.reasoning or _Reasoning()),
        "service_tier": asked.sandbox.service_tier,
        "store": False,
        "temperature": 1.0,
        "text": {"format": msgspec.to_builtins(_wanted(asked.text) or _TextFormat())},
        "tool_choice": msgspec.to_builtins(asked.tool_choice or "auto"),
        "tools": [{"strict": False, "parameters": None, **tool} for tool in tools],
        "top_p": 1.0,
        "truncation": "disabled",
        "user": asked.user,
    }
    return ResponsesWriter(begun, has_summary=asked.wants_summary, is_sealed=asked.wants_seal)


def in_words_of_responses(error: ApiError) -> ApiError:
    """The error of a chat, its field named as callers of this API know it."""
    for pattern, name in _OF_CHAT.items():
        if error.param is not None:
            error.param = pattern.sub(name, error.param)
    return error


def _messages(item: Item, place: str) -> list[Message]:
    """One input item as messages: none for what is only told back."""
    kind = item.get("type", "message")
    if kind == "message":
        message = _read(item, _InputMessage, place)
        return [Message(message.role, _content(message.content))]
    if kind in ("function_call_output", "custom_tool_call_output"):
        return [Message("tool", _content(_read(item, _Result, place).output))]
    if kind == "function_call":
        _read(item, _Call, place)
        return [Message("assistant")]
    if kind == "reasoning":
        sealed = _read(item, _Thought, place).encrypted_content
        if sealed is not None and not sealed.startswith(SEAL):
            text = "The encrypted content could not be verified: the sandbox did not encrypt it."
            raise bad_request(text, param=f"{place}.encrypted_content", code="invalid_encrypted_content")
    elif kind == "item_reference":
        raise ApiError(404, f"Item with id '{item.get('id')}' not found: the sandbox stores none.", param=place)
    return []


def _content(content: _Content) -> str | list[Part]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: _InputText | _OutputText | _Refusal | _InputImage | _InputFile) -> Part:
    match part:
        case _InputImage(image_url=url):
            return ImagePart(ImageUrl(url))
        case _InputFile():
            return ChatFilePart({})
        case _Refusal(refusal=text):
            return RefusalPart(text)
    return TextPart(part.text)


def _tool(tool: Item, place: str) -> Tool:
    function = _read(tool, _FunctionTool, place)
    return Tool(FunctionSpec(function.name, function.parameters))


def _choice(
    choice: Literal["none", "auto", "required"] | _NamedFunction | None,
) -> Literal["none", "auto", "required"] | NamedTool | None:
    return NamedTool(FunctionName(choice.name)) if isinstance(choice, _NamedFunction) else choice


def _format(text: _Text | None) -> TextFormat | JsonObjectFormat | JsonSchemaFormat | None:
    match _wanted(text):
        case _SchemaFormat(name=name, schema=schema):
            return JsonSchemaFormat(NamedSchema(name, schema))
        case _ObjectFormat():
            return JsonObjectFormat()
    return None


def _wanted(text: _Text | None) -> _TextFormat | _ObjectFormat | _SchemaFormat | None:
    return text.format if text is not None else None


def _read(item: Item, kind: type[Asked], place: str) -> Asked:
    """The item as what its type says that it is. Raises ApiError 400."""
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        raise field_error(str(error), within=place) from None
