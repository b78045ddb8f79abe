"""What each sandbox model answers, and what it counts: pure functions from a request to an Answer."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from itertools import cycle, islice
from urllib.parse import urlsplit

from crun.sandbox import schema
from crun.sandbox.chat import (
    ChatRequest,
    ImagePart,
    JsonSchemaFormat,
    Message,
    NamedTool,
    RefusalPart,
    TextPart,
    Tool,
)
from crun.sandbox.errors import bad_request

# A part that is no text (image, audio, file) counts as this many prompt tokens, whatever its size.
MEDIA_TOKENS = 85

_WORD_AND_SPACE = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True)
class Usage:
    """The true counts of a whole answer, over all choices; completion tokens include reasoning tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, given `choices` times. With `tool` set the pieces are those of the call's arguments."""

    pieces: tuple[str, ...]
    finish_reason: str
    usage: Usage
    choices: int = 1
    tool: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def count_words(text: str) -> int:
    """The sandbox's tokens in `text`: one for each run of characters between whitespace."""
    return len(text.split())


def split_words(text: str) -> tuple[str, ...]:
    """`text` cut after each word's trailing whitespace; joined they are `text` again."""
    stripped = text.lstrip()
    pieces = _WORD_AND_SPACE.findall(stripped)
    if len(stripped) < len(text):
        pieces[:1] = [text[: len(text) - len(stripped)] + "".join(pieces[:1])]
    return tuple(pieces)


def count_prompt(messages: list[Message]) -> int:
    """Prompt tokens: the words of all messages, and MEDIA_TOKENS for each part that is no text."""
    total = 0
    for message in messages:
        if isinstance(message.content, str):
            total += count_words(message.content)
            continue
        for part in message.content or ():
            match part:
                case TextPart(text=text) | RefusalPart(refusal=text):
                    total += count_words(text)
                case _:
                    total += MEDIA_TOKENS
    return total


def text_of(message: Message) -> str:
    """The message as text: its text parts, and `[image]`, `[audio]` or `[file]` for another part."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    words = []
    for part in message.content:
        match part:
            case TextPart(text=text) | RefusalPart(refusal=text):
                words.append(text)
            case ImagePart():
                words.append("[image]")
            case _:
                words.append(f"[{type(part).__name__.removesuffix('Part').lower()}]")
    return " ".join(words)


def last_user_text(request: ChatRequest) -> str:
    """The text of the last message of role user, empty when there is none."""
    return next((text_of(message) for message in reversed(request.messages) if message.role == "user"), "")


def echo(request: ChatRequest) -> Answer:
    """sandbox-echo: the last user message comes back."""
    return _spoken(request, last_user_text(request))


def describe_images(request: ChatRequest) -> Answer:
    """sandbox-vision: how many images there are and of which kind; URLs are named, never fetched."""
    kinds = [
        _image_kind(part, f"messages[{at}].content[{place}].image_url.url")
        for at, message in enumerate(request.messages)
        if isinstance(message.content, list)
        for place, part in enumerate(message.content)
        if isinstance(part, ImagePart)
    ]
    count = f"{len(kinds)} image{'' if len(kinds) == 1 else 's'}"
    return _spoken(request, f"{count}: {'; '.join(kinds)}" if kinds else count)


def write_json(request: ChatRequest) -> Answer:
    """sandbox-json: a document valid for the schema asked for, otherwise `{"answer": "<user's text>"}`."""
    wanted = request.response_format
    if not isinstance(wanted, JsonSchemaFormat):
        return _spoken(request, json.dumps({"answer": last_user_text(request)}, ensure_ascii=False))
    try:
        document = schema.example(wanted.json_schema.schema)
    except schema.SchemaError as error:
        where = "response_format.json_schema.schema"
        raise bad_request(f"Invalid schema for response_format: {error}", param=where) from None
    return _spoken(request, json.dumps(document, ensure_ascii=False))


def call_tool(request: ChatRequest) -> Answer:
    """sandbox-tools: a call of the first (or the named) tool; after a tool's result, text quoting it."""
    tool = _chosen_tool(request)
    if request.messages[-1].role in ("tool", "function"):
        return _spoken(request, f'The tool answered: "{text_of(request.messages[-1])}"')
    if tool is None:
        return echo(request)
    try:
        arguments = schema.example(tool.function.parameters or {"type": "object"})
    except schema.SchemaError as error:
        where = f"Invalid schema for function '{tool.function.name}'"
        raise bad_request(f"{where}: {error}", param="tools") from None
    text = json.dumps(arguments, ensure_ascii=False)
    return _spoken(request, text, tool=tool.function.name, finish_reason="tool_calls")


def _chosen_tool(request: ChatRequest) -> Tool | None:
    tools = request.tools or []
    match request.tool_choice:
        case "none":
            return None
        case NamedTool(function=wanted):
            named = [tool for tool in tools if tool.function.name == wanted.name]
            if not named:
                text = f"tool_choice names '{wanted.name}', which is not in tools."
                raise bad_request(text, param="tool_choice")
            return named[0]
        case "required" if not tools:
            raise bad_request("tool_choice 'required' needs at least one tool.", param="tool_choice")
    return tools[0] if tools else None


def _image_kind(part: ImagePart, param: str) -> str:
    url = part.image_url.url
    if not url.startswith("data:"):
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        if not host:
            raise bad_request("An image needs a data URL or an absolute URL.", param=param)
        return host
    kind, comma, payload = url[len("data:") :].partition(",")
    if not comma or not kind.endswith(";base64"):
        raise bad_request("An image's data URL has the form data:TYPE;base64,BYTES.", param=param)
    try:
        size = len(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        raise bad_request("The image's data URL is not valid base64.", param=param) from None
    return f"{kind.removesuffix(';base64') or 'text/plain'}, {size} bytes"


def _spoken(request: ChatRequest, text: str, *, tool: str | None = None, finish_reason: str = "stop") -> Answer:
    """The answer that says `text` under the request's script, stop sequences, limit and choices."""
    script = request.sandbox
    text = text if script.output is None else script.output
    pieces = split_words(text)
    if script.chunks is not None:
        pieces = _exactly(pieces, script.chunks)
    if request.stop and tool is None:
        pieces = _until_stop(pieces, request.stop)
    reasoning = script.reasoning_tokens
    name_tokens = 0 if tool is None else 1
    limit = request.word_limit
    if limit is not None:
        reasoning = min(reasoning, limit)
        room = max(0, limit - reasoning - name_tokens)
        if len(pieces) > room:
            pieces, finish_reason = pieces[:room], "length"
    words = count_words("".join(pieces)) + name_tokens
    choices = request.n or 1
    return Answer(pieces, finish_reason, _count_usage(request, words * choices, reasoning), choices, tool)


def _count_usage(request: ChatRequest, words: int, reasoning: int) -> Usage:
    prompt = count_prompt(request.messages)
    cached = request.sandbox.cached_tokens
    if cached > prompt:
        text = f"sandbox.cached_tokens is {cached}, but the prompt has {prompt} tokens."
        raise bad_request(text, param="sandbox.cached_tokens")
    return Usage(prompt, words + reasoning, cached, reasoning)


def _exactly(pieces: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` words: the given ones repeated or cut, each with a space behind it."""
    words = ("".join(pieces)).split() or ["word"]
    return tuple(f"{word} " for word in islice(cycle(words), count))


def _until_stop(pieces: tuple[str, ...], stop: str | list[str]) -> tuple[str, ...]:
    text = "".join(pieces)
    found = [text.find(mark) for mark in ([stop] if isinstance(stop, str) else stop) if mark]
    ends = [at for at in found if at >= 0]
    return split_words(text[: min(ends)]) if ends else pieces
