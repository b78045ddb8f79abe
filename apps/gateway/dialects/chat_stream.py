"""A Chat Completions stream on its way through: watched for output, usage, errors and its end. Pure.

Events are parsed to be watched, but their own bytes go on: only the upstream's model name, completion id and
fingerprint are replaced, as byte sequences. Quotes inside JSON strings are escaped, so such a sequence can only be a
key of the chunk itself. The one event that is not parsed is the common one: the head known from its stream, and a
piece of text, of a thought or of a call's arguments (`pass_on`). Usage that comes with each of them is kept as it is,
and understood when somebody asks what was told.
"""

import re
import time
from collections.abc import Callable
from typing import Any

import orjson

from apps.gateway.dialects.chat_repairs import Repairs
from apps.gateway.dialects.published import PUBLIC_FIELDS, failure_of, reason_as_published
from apps.gateway.dialects.sse import EventSplitter, event_data, events
from apps.gateway.dialects.vendor_json import FLAT_OBJECT, STRING, read_json, text_of, write_json
from apps.gateway.errors import CONTENT_FILTERED, UPSTREAM_FAILED, UPSTREAM_OVERLOADED, GatewayError
from apps.gateway.metering.token_usage import NOTHING_TOLD, ToldUsage, read_usage
from apps.usage.contracts import TokenCounts

_IDENTITY = {
    name: re.compile(rb'"' + name.encode() + rb'"\s*:\s*"(?:[^"\\]|\\.)*"')
    for name in ("id", "model", "system_fingerprint")
}
_CHOICES = b'"choices":'
_FINGERPRINT = b'"system_fingerprint"'
_DATA = b"data: "
_PLAIN_TAIL = re.compile(
    rb'(?P<choices>(?P<before>\[\{"index":\d+,"delta":\{"(?:content|reasoning(?:_content)?|(?P<call>tool_calls":\[\{"index":'
    rb'\d+,"(?:function":\{"arguments|custom":\{"input)))":)(?!"")(?P<said>%b)(?(call)\}\}\])\}(?:,"logprobs":null)?'
    rb',"finish_reason":null\}\])(?:,"usage":(?:null|(?P<usage>%b)))?(?P<more>(?:,"obfuscation":"\w*")?\}\n\n)'
    % (STRING, FLAT_OBJECT)
)
_DONE = b"[DONE]"
_REQUIRED = frozenset(("id", "object", "created", "model"))
_OVERLOADED = (UPSTREAM_OVERLOADED.code, 429, 503, 529)
"""Codes of errors within a stream: ours, and what OpenRouter and others put there, which is a status."""
_DICT_OR_NONE = (dict, type(None))
_PUBLIC_FIELDS = frozenset((*PUBLIC_FIELDS, "usage", "obfuscation"))
OUTPUT_FIELDS = ("content", "tool_calls", "function_call", "reasoning_content", "reasoning", "refusal")


class ChatStream:
    """Turns an upstream's bytes into ours. After `end()` the totals tell what to bill."""

    def __init__(
        self,
        *,
        completion_id: str,
        model: str,
        choices: int,
        token_bound: int,
        note_output: Callable[[str | bytes], None] | None = None,
    ) -> None:
        """`note_output` gets every piece of output, as text or JSON, where somebody must know how much it is."""
        self._splitter = EventSplitter()
        self._token_bound = token_bound
        self._choices = choices
        self._note_output = note_output
        self._finished: set[str] = set()
        self._repairs = Repairs()
        self._ours = {"id": completion_id, "model": model, "system_fingerprint": None}
        self._their_head = b""
        self._our_head = b""
        self._before_text = self._after_text = b""
        """Around the text of the event that was passed on last; forgotten with the next that is not."""
        self._is_call = False
        """That text is of a call's arguments."""
        self._call = b""
        """What stands before the arguments that a call goes on with, if its last piece was nothing else."""
        self._created = 0
        self.is_done = False
        """`[DONE]` came: nothing after it belongs to the answer."""
        self.failure: GatewayError | None = None
        self.usage: object = None
        """What the upstream told last, in its own words; `told` is what it means."""
        self._understood: tuple[object, ToldUsage] = None, NOTHING_TOLD
        self.service_tier: object = None
        """The tier that the upstream says it serves at."""
        self.output_count = 0
        """Words of output, and at least one for each piece: a word has one token or more, so this is never more than
        was produced."""
        self.finish_reason = ""
        self.skipped_events = 0

    def feed(self, received: bytes) -> bytes:
        """What to send for these bytes; b"" while an event is incomplete.

        Sets `failure` when the upstream reports an error or sends what cannot be relayed: what came before that in the
        same read is still to be sent."""
        if (passed := self.pass_on(received)) is not None:
            return passed
        block = self._splitter.feed(received)
        sent = b"".join([self._event(event) for event in events(block)]) if block else b""
        if self._splitter.is_overfull and self.failure is None:
            self.failure = GatewayError(UPSTREAM_FAILED, "The upstream sent an event that is too large.")
        return sent

    def pass_on(self, received: bytes) -> bytes | None:
        """What to send for a read that is nothing but whole events like those before it, each with a piece of text.

        None for any other read, of which nothing is noted yet: it is for `feed`."""
        head, before, after = self._their_head, self._before_text, self._after_text
        if not head or not self._splitter.is_empty or self.is_done or self.failure is not None:
            return None
        if before and received.startswith(before) and received.endswith(after):
            text = text_of(received[len(before) : len(received) - len(after)])
            if text:
                self._count(text, is_call=self._is_call)
                return self._our_head + received[len(head) :]
        at, texts, ours, usage, call = 0, [], [], self.usage, None
        while received.startswith(head, at):
            tail = _PLAIN_TAIL.match(received, at + len(head))
            if tail is None:
                return None
            choices, start, call, said, told, more = tail.groups()
            text = text_of(said)
            if text is None or (call is not None and start != self._call):
                return None
            texts.append((text, call is not None))
            if told is None:
                ours.append(tail.group())
            elif usage := _usage(told):
                ours.append(choices + more)
            else:
                return None
            around = received[at : tail.start("said")], received[tail.end("said") : tail.end()]
            at = tail.end()
        if not texts or at != len(received):
            return None
        self.usage = usage
        self._before_text, self._after_text = around if told is None else (b"", b"")
        self._is_call = call is not None
        for text, is_call in texts:
            self._count(text, is_call=is_call)
        return self._our_head + self._our_head.join(ours)

    def end(self) -> bytes:
        """The upstream closed the connection; what remains to be sent of its last event.

        Sets `failure` when the answer is not whole: neither `[DONE]` nor a finish reason of every choice came."""
        sent = self._event(self._splitter.rest())
        if self.failure is None and not self.is_done and not self.is_finished:
            message = "The upstream ended the stream before the answer was complete."
            self.failure = GatewayError(UPSTREAM_FAILED, message)
        return sent

    def check(self) -> None:
        """Raise the failure, if there is one: after what came before it was sent."""
        if self.failure is not None:
            raise self.failure

    def closing_events(self, usage: dict[str, Any]) -> bytes:
        """The last two events of a whole answer: usage in a chunk of its own, and `[DONE]`."""
        chunk: dict[str, Any] = {
            "id": self._ours["id"],
            "object": "chat.completion.chunk",
            "created": self._created or int(time.time()),
            "model": self._ours["model"],
            "choices": [],
            "usage": usage,
        }
        return b"data: " + write_json(chunk) + b"\n\ndata: [DONE]\n\n"

    def _event(self, event: bytes) -> bytes:
        self._before_text = self._after_text = b""
        payload = event_data(event)
        if not payload or self.is_done or self.failure is not None:
            return b""
        if payload == _DONE:
            self.is_done = True
            return b""
        chunk = _parse(payload)
        if chunk is None:
            self.skipped_events += 1
            return b""
        if error := chunk.get("error") or chunk.get("object") == "error":
            self.failure = _reported(error)
            return b""
        usage = chunk.get("usage")
        if usage is not None:
            self._take_usage(usage)
            if not chunk.get("choices"):
                return b""
        self._watch(chunk)
        if self.failure is not None:
            return b""
        is_repaired = self._repairs.repair(chunk)
        if is_repaired or usage is not None or not _PUBLIC_FIELDS.issuperset(chunk):
            public = {name: value for name, value in chunk.items() if name in _PUBLIC_FIELDS and name != "usage"}
            payload = write_json(public)
        self._call = b"" if is_repaired else _begin_of_arguments(payload)
        return self._as_ours(payload, chunk)

    def _as_ours(self, payload: bytes, chunk: dict[str, Any]) -> bytes:
        """The event with our names. Nearly all chunks of a stream begin with the same bytes, up to their choices."""
        event = _DATA + payload + b"\n\n"
        head, border, tail = event.partition(_CHOICES)
        if self._their_head != head + border or _FINGERPRINT in tail:
            if chunk.get("choices") is None:
                return b""  # it says nothing
            if not (border and b'"id"' in head and b'"model"' in head) or _FINGERPRINT in tail:
                return self._rename(event, chunk)
            self._their_head, self._our_head = head + border, self._rename(head, chunk) + border
        return self._our_head + tail

    def _rename(self, part: bytes, chunk: dict[str, Any]) -> bytes:
        """A part of a payload with the upstream's identity replaced by ours: only these values, wherever they stand."""
        self._created = chunk["created"] if isinstance(chunk.get("created"), int) else self._created
        for name, pattern in _IDENTITY.items():
            for found in pattern.finditer(part):
                if read_json(b"{" + found.group() + b"}")[name] == chunk.get(name):
                    ours = b'"' + name.encode() + b'":' + write_json(self._ours[name])
                    part = part.replace(found.group(), ours)
                    break
        return part if chunk.keys() >= _REQUIRED else self._complete(part, chunk)

    def _complete(self, part: bytes, chunk: dict[str, Any]) -> bytes:
        """The part with the fields that a chunk must have, and this one does not."""
        self._created = self._created or int(time.time())
        ours = {**self._ours, "object": "chat.completion.chunk", "created": self._created}
        missing = {name: ours[name] for name in sorted(_REQUIRED - chunk.keys())}
        before, _, rest = part.partition(b"{")
        return before + write_json(missing)[:-1] + b"," + rest

    @property
    def is_finished(self) -> bool:
        """Whether every choice had its finish reason: no output follows. Usage alone says nothing of that: it may be
        told in every chunk."""
        return len(self._finished) >= self._choices

    @property
    def told(self) -> ToldUsage:
        """The usage that the upstream told last; vendors repeat it, cumulatively."""
        usage, told = self._understood
        if usage is not self.usage:
            told = read_usage(self.usage, bound=self._token_bound)
            self._understood = self.usage, told
        return told

    @property
    def tokens(self) -> TokenCounts | None:
        """What the upstream told and can be billed; None without."""
        return self.told.tokens

    def _count(self, text: str, *, is_call: bool) -> None:
        self.output_count += 1 if is_call else len(text.split()) or 1
        if self._note_output is not None:
            self._note_output(text)

    def _watch(self, chunk: dict[str, Any]) -> None:
        self.service_tier = chunk.get("service_tier") or self.service_tier
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta")
            if delta:
                pieces = output_of(delta)
                self.output_count += sum(map(_pieces, pieces))
                if self._note_output is not None:
                    for piece in pieces:
                        self._note_output(piece if isinstance(piece, str) else write_json(piece))
            if choice.get("finish_reason"):
                self.finish_reason = reason_as_published(str(choice["finish_reason"]), has_calls=False)
                self._finished.add(str(choice.get("index")))
                self.failure = self.failure or failure_of(choice)

    def _take_usage(self, usage: object) -> None:
        """The last usage counts. An empty one takes nothing back."""
        if usage != {} or self.tokens is None:
            self.usage = usage


def _reported(error: object) -> GatewayError:
    """What an upstream says of its own failure, as far as our callers can do something about it."""
    code = error.get("code") if isinstance(error, dict) else None
    if code == CONTENT_FILTERED.code:
        return GatewayError(CONTENT_FILTERED, "The upstream's content filter ended the answer.")
    if code in _OVERLOADED:
        return GatewayError(UPSTREAM_OVERLOADED, "The upstream became overloaded while answering.")
    return GatewayError(UPSTREAM_FAILED, "The upstream reported an error while answering.")


def output_of(message: dict[str, Any]) -> list[Any]:
    """Everything in a message, or in a piece of one, that is output. vLLM says the same thought under two names."""
    pieces = [message[field] for field in OUTPUT_FIELDS if message.get(field)]
    if message.get("reasoning") and message["reasoning"] == message.get("reasoning_content"):
        pieces.remove(message["reasoning"])
    return pieces


def _begin_of_arguments(payload: bytes) -> bytes:
    """What stands before the piece of arguments that is all of a chunk's output; b"" for any other chunk."""
    tail = _PLAIN_TAIL.search(payload + b"\n\n") if b'"tool_calls"' in payload else None
    return b"" if tail is None or tail["call"] is None else tail["before"]


def _usage(literal: bytes) -> dict[str, Any] | None:
    """The usage of a chunk as it stands there; None for what is no JSON."""
    try:
        usage: dict[str, Any] = orjson.loads(literal)
    except orjson.JSONDecodeError:
        return None
    return usage


def _pieces(output: object) -> int:
    """How many tokens a piece of output has at least."""
    return len(output.split()) or 1 if isinstance(output, str) else 1


def _parse(payload: bytes) -> dict[str, Any] | None:
    """The parsed chunk; None for garbage, which is skipped: one bad line does not spoil a good answer."""
    try:
        chunk = read_json(payload)
    except ValueError:
        return None
    return chunk if isinstance(chunk, dict) and _is_chunk(chunk) else None


def _is_chunk(chunk: dict[str, Any]) -> bool:
    choices = chunk.get("choices")
    if choices is None:
        return True
    if not isinstance(choices, list):
        return False
    for choice in choices:
        if not isinstance(choice, dict) or not isinstance(choice.get("delta"), _DICT_OR_NONE):
            return False
    return True
