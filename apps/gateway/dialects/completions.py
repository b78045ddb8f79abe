"""Legacy Completions, done as Chat Completions of any model: the request, the whole answer, the stream. Pure.

The prompt becomes one message of the user. What Chat Completions has no word for needs a route that serves Completions
itself, and is refused where there is none, so that no answer is quietly another one than was asked for."""

import time
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.chat_fields import (
    MAX_TOP_LOGPROBS,
    MAX_USER,
    check_fields,
    clean_name,
    integer_from,
    name_model,
)
from apps.gateway.dialects.chat_pieces import TEXT, PlainPieces
from apps.gateway.dialects.large_body import Body
from apps.gateway.dialects.sse import event_data, events
from apps.gateway.dialects.strict_json import MAX_TEXT_BYTES, read_object, too_much_text
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import bad_field
from apps.gateway.metering.token_usage import estimate_tokens

DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's."""
OBJECT: Final = "text_completion"
_DONE: Final = b"[DONE]"
_MARK: Final = b'"text":"~"'
_MARKED: Final = TEXT + b'"~"},"finish_reason":null}]}'
_REASONS: Final = ("stop", "length", "content_filter")
MAX_BEST_OF: Final = 20
"""OpenAI's."""
_CHECK_LOGPROBS: Final = integer_from(0, MAX_TOP_LOGPROBS)
_CHECK_BEST_OF: Final = integer_from(1, MAX_BEST_OF)
_NOT_AS_CHAT: Final = {
    "suffix": "suffix is not supported: this model is asked by chat, which cannot insert text.",
    "logprobs": "The log probabilities of a prompt cannot be told: ask without echo.",
    "best_of": "best_of must be as n: answers are not ranked.",
}
"""Field -> why a chat cannot stand for a request that has it; `logprobs` beside `echo`, that is."""
_TRANSLATED: Final = ("prompt", "echo", "suffix", "logprobs", "best_of")
_OF_CHAT: Final = (
    "messages", "max_completion_tokens", "tools", "tool_choice", "functions", "function_call", "modalities", "audio",
)  # fmt: skip
"""Fields of Chat Completions whose answers a text completion has no place for."""


@dataclass(slots=True)
class CompletionsRequest(ChatRequest):
    """A valid request as the chat that is asked in its place."""

    echoed: str = ""
    """What stands before the text of each choice."""

    wants_native: tuple[str, ...] = ()
    """The fields for which only an upstream that serves Completions itself has words. `suffix` and `best_of` stand in
    the body; `logprobs` are also those of the prompt."""

    content_field: ClassVar[str] = "prompt"
    endpoint: ClassVar[str] = "completions"

    @property
    def prompt(self) -> str:
        """As guardrails left it."""
        prompt: str = self.body["messages"][0]["content"]
        return prompt

    @property
    def echoed_upstream(self) -> str:
        """What an upstream that serves Completions says before each of its texts: ours to say but where the log
        probabilities of it are wanted."""
        return self.echoed if "logprobs" in self.wants_native else ""

    def check_native(self, served: tuple[str, ...] = ()) -> None:
        """400 for a field that needs an upstream which serves Completions itself, where that serves these."""
        for name in self.wants_native:
            if name not in served:
                raise bad_field(name, _NOT_AS_CHAT[name])

    def input_estimate(self) -> int:
        """Tokens of the prompt, and of what stands behind the gap."""
        return ChatRequest.input_estimate(self) + estimate_tokens(len(self._suffix.encode()))

    def longest_text(self) -> str:
        """Both must fit into the model's context together."""
        return self.prompt + self._suffix

    @property
    def _suffix(self) -> str:
        suffix: str = self.body.get("suffix", "")
        return suffix

    def texts_changed(self) -> None:
        """Texts were put in place of others. What is echoed is what was asked."""
        ChatRequest.texts_changed(self)
        if self.echoed:
            self.echoed = self.prompt

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that does not chat, or that nobody serves as this needs it. Its bound on the output is told
        in the field that the provider knows."""
        ChatRequest.check_model(self, model)
        if self.wants_native and not any(served_as(target) for target in model.targets):
            self.check_native()
        self.output_cut = min(self.asked_output or DEFAULT_MAX_TOKENS, model.max_output_tokens)


def served_as(target: Target) -> str:
    """How the target serves Completions itself: `native`, or `fim`; "" where it is asked by chat."""
    form = target.options.get("completions", "chat")
    return "" if form == "chat" else form


def parse_completions(raw: Body) -> CompletionsRequest:
    """Check a request body. Raises GatewayError (400, 413) naming the first field that is wrong."""
    if len(raw) > MAX_TEXT_BYTES:
        raise too_much_text()
    body = read_object(raw)
    model = name_model(body)
    prompt = _prompt(body.get("prompt"))
    wants_native = _check(body)
    chat = {name: value for name, value in body.items() if name not in _TRANSLATED}
    check_fields(chat)
    if chat.get("user") is not None:
        chat["user"] = clean_name("user", chat["user"], most=MAX_USER, least=0)
    chat["messages"] = [{"role": "user", "content": prompt}]
    if body.get("logprobs") is not None:
        chat["logprobs"] = True
        chat |= {"top_logprobs": body["logprobs"]} if body["logprobs"] else {}
    if chat.get("max_tokens") is None:
        chat["max_tokens"] = DEFAULT_MAX_TOKENS
    chat |= {name: body[name] for name in wants_native if name != "logprobs"}
    asked = CompletionsRequest(
        model=model,
        stream=chat.get("stream") is True,
        choices=chat.get("best_of") or chat.get("n") or 1,  # all of them are billed, whichever are shown
        body=chat,
        body_bytes=len(raw),
        echoed=prompt if body.get("echo") else "",
        wants_native=wants_native,
    )
    asked.grow_as_written()
    return asked


def _prompt(value: object) -> str:
    if type(value) is list and len(value) == 1 and type(value[0]) is str:
        return value[0]
    if type(value) is list and len(value) > 1 and all(type(item) is str for item in value):
        raise bad_field("prompt", "One prompt a request: send one request for each.")
    if type(value) is not str:
        message = "prompt must be a string, or a list of one string. Token ids are not taken: send their text."
        raise bad_field("prompt", message)
    return value


def _check(body: dict[str, Any]) -> tuple[str, ...]:
    """The fields for which a chat has no words. Raises GatewayError (400) for what would be another answer without it,
    and for values that mean nothing."""
    for name in _OF_CHAT:
        if body.get(name) is not None:
            raise bad_field(name, f"{name} is a field of Chat Completions: ask at /chat/completions.")
    echo, suffix = body.get("echo"), body.get("suffix")
    if type(echo) not in (bool, type(None)):
        raise bad_field("echo", "echo must be true or false.")
    if type(suffix) not in (str, type(None)):
        raise bad_field("suffix", "suffix must be a string.")
    if body.get("logprobs") is not None:
        _CHECK_LOGPROBS("logprobs", body["logprobs"])
    wants_native = ["suffix"] if suffix else []
    wants_native += ["logprobs"] if echo and body.get("logprobs") is not None else []
    best_of, choices = body.get("best_of"), body.get("n") or 1
    if best_of is not None:
        _CHECK_BEST_OF("best_of", best_of)
        if type(choices) is int and best_of < choices:
            raise bad_field("best_of", "best_of must not be less than n.")
        if best_of != choices:
            if body.get("stream"):
                raise bad_field("best_of", "What is chosen among several cannot be streamed: best_of must be as n.")
            wants_native.append("best_of")
    return tuple(wants_native)


def text_completion(answer: dict[str, Any], *, request_id: str, model: str, echoed: str) -> dict[str, Any]:
    """A chat completion as a text completion, but for its usage."""
    created = answer.get("created")
    return {
        "id": completion_id(request_id),
        "object": OBJECT,
        "created": created if type(created) is int else int(time.time()),
        "model": model,
        "choices": [
            _choice(choice, echoed + _text(choice.get("message")), position)
            for position, choice in enumerate(answer["choices"])
        ],
    }


def completion_id(request_id: str) -> str:
    """The id of an answer: the request's, in the form that clients of Completions know."""
    return f"cmpl-{request_id.partition('_')[2]}"


class CompletionsStream:
    """Our own stream of Chat Completions as one of text completions."""

    def __init__(self, *, request_id: str, model: str, echoed: str) -> None:
        self._id = completion_id(request_id)
        self._model = model
        self._echoed = echoed
        self._begun: set[int] = set()
        self._created = int(time.time())
        self._plain = PlainPieces()
        self._head = b""
        self._frame = b"", b""
        """What stands before and after a piece of the first choice's text, in chunks that begin with `_head`."""
        self._offsets: dict[int, int] = {}
        """Choice -> characters of the tokens whose log probabilities were told."""

    def feed(self, block: bytes) -> bytes:
        """The events that stand for these whole ones; b"" where nothing is to be said."""
        plain = self._plain
        if 0 in self._begun and plain.read(block) and plain.before == TEXT:
            before, after = self._around()
            told = b""
            for literal in plain.literals:
                told += before + literal + after
            return told
        return b"".join(map(self._event, events(block)))

    def _around(self) -> tuple[bytes, bytes]:
        """What stands before and after a piece of the first choice's text, in chunks that begin as this one."""
        if self._head != self._plain.head:
            self._head = self._plain.head
            before, _, after = self._event(self._head + _MARKED).partition(_MARK)
            self._frame = before + b'"text":', after
        return self._frame

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        chunk = None if payload == _DONE else read_json(payload)
        if chunk is None or "error" in chunk:
            return event + b"\n\n"
        created = chunk.get("created")
        self._created = created if type(created) is int and created else self._created
        choices = [told for choice in chunk.get("choices") or () if (told := self._part(choice))]
        usage = chunk.get("usage")
        if not choices and usage is None:
            return b""
        ours = {"id": self._id, "object": OBJECT, "created": self._created, "choices": choices, "model": self._model}
        if usage is not None:
            ours["usage"] = usage
        return b"data: " + write_json(ours) + b"\n\n"

    def _part(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """A choice's piece of text; None for one that says nothing, such as the role that a chat begins with."""
        index, text = _index(choice, 0), _text(choice.get("delta"))
        if not text and not choice.get("finish_reason") and not choice.get("logprobs"):
            return None
        if index not in self._begun:
            self._begun.add(index)
            text = self._echoed + text
        told = _choice(choice, text, index, self._offsets.get(index, 0))
        if told["logprobs"] is not None:
            self._offsets[index] = self._offsets.get(index, 0) + sum(map(len, told["logprobs"]["tokens"]))
        return told


def _choice(choice: dict[str, Any], text: str, position: int, offset: int = 0) -> dict[str, Any]:
    return {
        "text": text,
        "index": _index(choice, position),
        "logprobs": _logprobs(choice.get("logprobs"), offset),
        "finish_reason": _reason(choice.get("finish_reason")),
    }


def _reason(reason: object) -> object:
    """Completions know no calls."""
    return reason if reason in _REASONS or not reason else "stop"


def _logprobs(told: object, offset: int) -> dict[str, Any] | None:
    """Tokens of a chat in the form of Completions: `text_offset` counts characters from where the text begins."""
    content = told.get("content") if isinstance(told, dict) else None
    listed = [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []
    if not listed:
        return None
    tokens = [str(each.get("token", "")) for each in listed]
    tops = [each.get("top_logprobs") for each in listed]
    return {
        "tokens": tokens,
        "token_logprobs": [each.get("logprob") for each in listed],
        "top_logprobs": [_likely(top) for top in tops] if any(tops) else None,
        "text_offset": [offset + length for length in accumulate(map(len, tokens[:-1]), initial=0)],
    }


def _likely(tops: object) -> dict[str, Any]:
    listed = tops if isinstance(tops, list) else []
    return {str(each.get("token", "")): each.get("logprob") for each in listed if isinstance(each, dict)}


def _index(choice: dict[str, Any], position: int) -> int:
    index = choice.get("index")
    return index if type(index) is int else position


def _text(message: object) -> str:
    """What a message or a piece of it says. Thoughts have no place in a text completion."""
    if not isinstance(message, dict):
        return ""
    text = message.get("content") or message.get("refusal")
    if isinstance(text, list):  # Mistral's, where there are thoughts
        parts = (part.get("text") for part in text if isinstance(part, dict) and part.get("type") == "text")
        return "".join(part for part in parts if isinstance(part, str))
    return text if isinstance(text, str) else ""
