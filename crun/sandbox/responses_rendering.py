"""Answers of the Responses API as bytes: the events of a stream, and the JSON of a whole one. Pure.

The shapes are those of `Response` and `ResponseStreamEvent` in the Responses reference of OpenAI."""

from collections.abc import Iterator
from typing import Any

import orjson

from crun.sandbox.answers import Answer, count_words
from crun.sandbox.rendering import STREAM_ERROR, Report, new_id, spoken_tokens
from crun.sandbox.steps import Act, Step

SEAL = "sandbox-sealed-"
"""What the encrypted content of a thought begins with."""
_NAMES = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "prompt_tokens_details": "input_tokens_details",
    "completion_tokens_details": "output_tokens_details",
}
"""What Chat Completions call a count -> its name here."""
_DETAILS = ("cached_tokens", "reasoning_tokens")
Item = dict[str, Any]


class ResponsesWriter:
    """Writes one answer. `begun` are the fields that every form of the response has."""

    late = (
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"msg_late",'
        b'"output_index":0,"content_index":0,"delta":"late","logprobs":[],"sequence_number":0}\n\n',
    )

    def __init__(self, begun: Item, *, has_summary: bool, is_sealed: bool) -> None:
        self._begun = {"id": new_id("resp_"), "object": "response", **begun}
        self._has_summary = has_summary
        self._is_sealed = is_sealed
        self._sent = 0

    def usage(self, told: Any) -> Any:
        """A report of Chat Completions in the words of Responses."""
        if not isinstance(told, dict):
            return told
        ours = {_NAMES.get(name, name): value for name, value in told.items()}
        for name in ("input_tokens_details", "output_tokens_details"):
            ours[name] = {inner: value for inner, value in ours[name].items() if inner in _DETAILS}
        ours["input_tokens_details"]["cache_write_tokens"] = 0
        return ours

    def failure(self, sent: int) -> bytes:
        """The event that tells of an error, after `sent` others."""
        self._sent = sent
        return self._event("error", message=STREAM_ERROR["message"], code=STREAM_ERROR["type"], param=None)

    def whole(self, answer: Answer, report: Report) -> Step:
        """The body of an answer that is not streamed, as one step with all its tokens."""
        ended, is_told = self._ended(answer, self._items(answer), report)
        return Step(orjson.dumps(ended), tokens=spoken_tokens(answer.usage), carries_usage=is_told)

    def steps(self, answer: Answer, report: Report, *, delay_s: float, chunk_delay_s: float) -> Iterator[Step]:
        """What begins it, item after item, and the response as it ended."""
        begun = {**self._begun, "status": "in_progress", "output": [], "usage": None}
        yield Step(self._event("response.created", response=begun), pause_s=delay_s)
        yield Step(self._event("response.in_progress", response=begun))
        items = self._items(answer)
        for place, item in enumerate(items):
            if item["type"] == "reasoning":
                yield from self._thought(item, place)
            elif item["type"] == "function_call":
                yield from self._call(item, place, answer, chunk_delay_s)
            else:
                yield from self._message(item, place, answer, chunk_delay_s)
        ended, is_told = self._ended(answer, items, report)
        yield Step(self._event(f"response.{ended['status']}", response=ended), Act.END, carries_usage=is_told)

    def _items(self, answer: Answer) -> list[Item]:
        """The output: a thought where tokens were reasoned, and the call or the message, if there was room for it."""
        items: list[Item] = []
        if answer.usage.reasoning_tokens:
            summary = [{"type": "summary_text", "text": f"I thought for {answer.usage.reasoning_tokens} tokens."}]
            thought = {"id": new_id("rs_"), "type": "reasoning", "summary": summary if self._has_summary else []}
            items.append(thought | ({"encrypted_content": new_id(SEAL)} if self._is_sealed else {}))
        status = "incomplete" if answer.finish_reason == "length" else "completed"
        if answer.tool is not None:
            call = {"id": new_id("fc_"), "type": "function_call", "status": status, "arguments": answer.text}
            items.append({**call, "call_id": new_id("call_"), "name": answer.tool})
        elif answer.pieces or status == "completed":
            message = {"id": new_id("msg_"), "type": "message", "status": status, "content": [_text(answer.text)]}
            items.append({**message, "role": "assistant"})
        return items

    def _ended(self, answer: Answer, items: list[Item], report: Report) -> tuple[Item, bool]:
        """(the response at its end, whether it tells usage)."""
        is_cut = answer.finish_reason == "length"
        ended = {**self._begun, "status": "incomplete" if is_cut else "completed", "output": items}
        if is_cut:
            ended["incomplete_details"] = {"reason": "max_output_tokens"}
        reported = report(answer.usage)
        if reported:
            ended["usage"] = reported[-1]
        return ended, bool(reported) and reported[-1] is not None

    def _thought(self, item: Item, place: int) -> Iterator[Step]:
        bare = {"id": item["id"], "type": "reasoning", "summary": []}
        yield Step(self._event("response.output_item.added", output_index=place, item=bare))
        for index, part in enumerate(item["summary"]):
            at = {"item_id": item["id"], "output_index": place, "summary_index": index}
            kind = "response.reasoning_summary_part"
            yield Step(self._event(f"{kind}.added", **at, part={**part, "text": ""}))
            yield Step(self._event("response.reasoning_summary_text.delta", **at, delta=part["text"]))
            yield Step(self._event("response.reasoning_summary_text.done", **at, text=part["text"]))
            yield Step(self._event(f"{kind}.done", **at, part=part))
        yield Step(self._event("response.output_item.done", output_index=place, item=item))

    def _call(self, item: Item, place: int, answer: Answer, chunk_delay_s: float) -> Iterator[Step]:
        empty = {**item, "status": "in_progress", "arguments": ""}
        added = self._event("response.output_item.added", output_index=place, item=empty)
        yield Step(added, Act.CHUNK, 1, chunk_delay_s)
        at = {"item_id": item["id"], "output_index": place}
        yield from self._deltas("response.function_call_arguments.delta", at, answer, chunk_delay_s)
        done = {"arguments": item["arguments"], "name": item["name"]}
        yield Step(self._event("response.function_call_arguments.done", **at, **done))
        yield Step(self._event("response.output_item.done", output_index=place, item=item))

    def _message(self, item: Item, place: int, answer: Answer, chunk_delay_s: float) -> Iterator[Step]:
        empty = {**item, "status": "in_progress", "content": []}
        yield Step(self._event("response.output_item.added", output_index=place, item=empty))
        at = {"item_id": item["id"], "output_index": place, "content_index": 0}
        yield Step(self._event("response.content_part.added", **at, part=_text("")))
        yield from self._deltas("response.output_text.delta", {**at, "logprobs": []}, answer, chunk_delay_s)
        yield Step(self._event("response.output_text.done", **at, logprobs=[], text=answer.text))
        yield Step(self._event("response.content_part.done", **at, part=item["content"][0]))
        yield Step(self._event("response.output_item.done", output_index=place, item=item))

    def _deltas(self, kind: str, at: Item, answer: Answer, chunk_delay_s: float) -> Iterator[Step]:
        """The pieces of the answer. All but the changing middle of these events is rendered once."""
        name = kind.encode()
        before = b"event: %b\ndata: " % name + orjson.dumps({"type": kind, **at})[:-1] + b',"delta":'
        for piece in answer.pieces:
            event = before + orjson.dumps(piece) + b',"sequence_number":%d}\n\n' % self._sent
            self._sent += 1
            yield Step(event, Act.CHUNK, count_words(piece), chunk_delay_s)

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, **fields, "sequence_number": self._sent}
        self._sent += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(event))


def _text(said: str) -> Item:
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
