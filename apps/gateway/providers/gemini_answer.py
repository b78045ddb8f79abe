"""Gemini's GenerateContentResponse as a Chat Completion: whole, and in the events of a stream. Pure.

Source: the reference of `models.generateContent`; the names of finish reasons are those of its `FinishReason`."""

import re
import secrets
import time
from typing import Any, Final

from apps.gateway.dialects.order import joined
from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.vendor_json import FLAT_OBJECT, STRING, read_json, write_json
from apps.gateway.errors import UPSTREAM_FAILED, GatewayError
from apps.gateway.providers.event_translation import (
    FAILED,
    FILTERED,
    GARBAGE,
    OVERLOADED,
    ChunkWriter,
    EventTranslator,
    read_object,
    with_usage,
)
from apps.gateway.providers.vendor_errors import prompt_filtered

_FILTERED: Final = frozenset((
    "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
))  # fmt: skip
_BROKEN: Final = frozenset((
    "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE", "IMAGE_OTHER", "NO_IMAGE",
))  # fmt: skip
"""The model failed in the middle of its answer. What came of it so far is not what was asked for."""
_PIECE: Final = re.compile(
    rb'data: \{"candidates": ?\[\{"content": ?\{"parts": ?\[\{"text": ?(?!"")(?P<said>%b)'
    rb'(?P<thought>, ?"thought": ?true)?\}\], ?"role": ?"model"\}(?:, ?"index": ?0)?\}\]'
    rb', ?"usageMetadata": ?(?P<usage>%b)(?:, ?"modelVersion": ?"[!#-\[\]-~]*")?(?:, ?"responseId": ?"[!#-\[\]-~]*")?'
    rb"\}\r?\n\r?\n" % (STRING, FLAT_OBJECT)
)
"""A response with a piece of text, in the order in which Google writes it."""
_OVERLOADED: Final = ("RESOURCE_EXHAUSTED", "UNAVAILABLE")


def whole_answer(body: bytes) -> dict[str, Any]:
    """A response as a Chat Completion. Raises ValueError when it is none, GatewayError when it is none on purpose."""
    answer = read_json(body)
    if not isinstance(answer, dict):
        raise ValueError("no response object")
    candidates = _candidates(answer)
    if not candidates and _is_blocked(answer):
        raise prompt_filtered()
    if not candidates:
        raise ValueError("no candidates")
    return {
        "object": "chat.completion",
        "created": int(time.time()),
        "choices": [_choice(candidate, position) for position, candidate in enumerate(candidates)],
        "usage": answer.get("usageMetadata"),
    }


class GeminiStream(EventTranslator):
    """A stream of responses, each with the next parts of its candidates. Nothing ends it but its finish reasons.

    Usage comes with every response, cumulatively. It is told on with output only: before any, nothing is billed."""

    def __init__(self) -> None:
        super().__init__()
        self._write = ChunkWriter()
        self._calls: dict[int, int] = {}
        """Candidate -> how many calls it has made, for each candidate that has begun."""
        self._usage: object = None
        self._unread = b""
        """A later usage, as it stands in JSON."""
        self._text, self._thought = self._write.frame("content"), self._write.frame("reasoning_content")

    def _known_piece(self, received: bytes, at: int) -> tuple[bytes, int] | None:
        event = _PIECE.match(received, at) if 0 in self._calls else None
        if event is None:
            return None
        said, thought, self._unread = event.groups()
        before, after = self._text if thought is None else self._thought
        return before + said + with_usage(after, self._unread), event.end()

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if not payload:
            return b""
        if self._unread:
            self._usage, self._unread = read_object(self._unread) or self._usage, b""
        try:
            answer = read_json(payload)
        except ValueError:
            return GARBAGE
        if not isinstance(answer, dict) or "error" in answer:
            return _reported(answer)
        self._usage = answer.get("usageMetadata") or self._usage
        candidates = _candidates(answer)
        if not candidates and _is_blocked(answer):
            return FILTERED
        pieces: list[dict[str, Any]] = []
        is_broken = False
        for position, candidate in enumerate(candidates):
            pieces += self._pieces(candidate, _index(candidate, position))
            is_broken = is_broken or str(candidate.get("finishReason")) in _BROKEN
        if pieces:
            pieces[-1]["usage"] = self._usage
        elif self._calls and not is_broken and answer.get("usageMetadata") is not None:
            return self._write.usage(self._usage)
        return b"".join([self._write.delta(**piece) for piece in pieces]) + (FAILED if is_broken else b"")

    def _pieces(self, candidate: dict[str, Any], index: int) -> list[dict[str, Any]]:
        """What one response adds to a candidate, as arguments for the writer."""
        deltas = []
        made = self._calls.get(index, 0)
        for part in _parts(candidate):
            delta = _as_fields(part)
            for call in delta.get("tool_calls", ()):
                call["index"] = made
                made += 1
            if delta:
                deltas.append(delta)
        reason = candidate.get("finishReason")
        if str(reason) in _BROKEN and not deltas:
            return []
        if (deltas or reason) and index not in self._calls:
            first: dict[str, Any] = {"role": "assistant", "content": None}
            deltas[:1] = [first | deltas[0]] if deltas else [first]
        if deltas or reason:
            self._calls[index] = made
        pieces: list[dict[str, Any]] = [{"delta": delta, "index": index} for delta in deltas]
        logprobs = _logprobs(candidate.get("logprobsResult"))
        if logprobs is not None and pieces:
            pieces[-1]["logprobs"] = logprobs
        if reason and str(reason) not in _BROKEN:
            pieces.append({"delta": {}, "index": index, "finish_reason": _finish_reason(reason, has_calls=made > 0)})
        return pieces


def _choice(candidate: dict[str, Any], position: int) -> dict[str, Any]:
    message = joined(map(_as_fields, _parts(candidate)))
    reason = candidate.get("finishReason")
    if str(reason) in _BROKEN:
        raise GatewayError(UPSTREAM_FAILED, "The model broke off with an answer that makes no sense.")
    choice = {
        "index": _index(candidate, position),
        "message": message,
        "finish_reason": _finish_reason(reason, has_calls="tool_calls" in message),
    }
    logprobs = _logprobs(candidate.get("logprobsResult"))
    return choice if logprobs is None else {**choice, "logprobs": logprobs}


def _as_fields(part: dict[str, Any]) -> dict[str, Any]:
    """A part as the fields of a message, which are the fields of a delta; {} for what has no counterpart."""
    signature = part.get("thoughtSignature")
    extra: dict[str, Any] = {}
    if isinstance(signature, str) and signature:
        extra = {"extra_content": {"google": {"thought_signature": signature}}}
    call, image, text = part.get("functionCall"), part.get("inlineData"), part.get("text")
    if isinstance(call, dict):
        return {"tool_calls": [_call(call) | extra]}
    if isinstance(image, dict):
        url = f"data:{image.get('mimeType')};base64,{image.get('data')}"
        return {"images": [{"type": "image_url", "image_url": {"url": url}}], **extra}
    if isinstance(text, str) and text:
        return {"reasoning_content": text} if part.get("thought") is True else {"content": text, **extra}
    return extra


def _call(call: dict[str, Any]) -> dict[str, Any]:
    arguments = write_json(call.get("args") or {}).decode()
    function = {"name": str(call.get("name")), "arguments": arguments}
    return {"id": str(call.get("id") or f"call_{secrets.token_hex(12)}"), "type": "function", "function": function}


def _finish_reason(reason: object, *, has_calls: bool) -> str:
    if reason == "MAX_TOKENS":
        return "length"
    if str(reason) in _FILTERED:
        return "content_filter"
    return "tool_calls" if has_calls else "stop"


def _logprobs(result: object) -> dict[str, Any] | None:
    """`LogprobsResult`: the chosen tokens, and the most likely ones at each place."""
    chosen = result.get("chosenCandidates") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(chosen, list):
        return None
    places = result.get("topCandidates")
    tops = [_dicts(place.get("candidates")) for place in _dicts(places)]
    tops += [[]] * (len(chosen) - len(tops))
    content = [
        {**_logprob(token), "top_logprobs": [_logprob(each) for each in top]}
        for token, top in zip(_dicts(chosen), tops, strict=False)
    ]
    return {"content": content, "refusal": None}


def _logprob(token: dict[str, Any]) -> dict[str, Any]:
    text = str(token.get("token", ""))
    return {"token": text, "logprob": token.get("logProbability", 0.0), "bytes": list(text.encode(errors="replace"))}


def _reported(answer: object) -> bytes:
    error = answer.get("error") if isinstance(answer, dict) else None
    return OVERLOADED if isinstance(error, dict) and error.get("status") in _OVERLOADED else FAILED


def _is_blocked(answer: dict[str, Any]) -> bool:
    feedback = answer.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def _candidates(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return _dicts(answer.get("candidates"))


def _parts(candidate: dict[str, Any]) -> list[dict[str, Any]]:
    content = candidate.get("content")
    return _dicts(content.get("parts")) if isinstance(content, dict) else []


def _dicts(found: object) -> list[dict[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _index(candidate: dict[str, Any], position: int) -> int:
    """Zero is often left out."""
    index = candidate.get("index")
    return index if isinstance(index, int) else position
