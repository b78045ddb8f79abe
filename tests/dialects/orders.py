"""The order of events that clients of each dialect rely on. Each function raises AssertionError that says what is
amiss."""

from typing import Any, Final

Events = list[Any]
_DELTAS: Final = {
    "text": ("text_delta", "citations_delta"),
    "thinking": ("thinking_delta", "signature_delta"),
    "redacted_thinking": (),
    "tool_use": ("input_json_delta",),
    "server_tool_use": ("input_json_delta",),
}
_USAGE: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_TERMINAL: Final = ("response.completed", "response.incomplete", "response.failed")


def chat_order(events: Events) -> None:
    """One id, one role and one reason to finish a choice, usage in a chunk of its own, `[DONE]` only after a whole
    answer."""
    is_whole = events[-1] == "[DONE]"
    assert is_whole or "error" in events[-1], f"neither [DONE] nor an error at the end: {events[-1]}"
    chunks = events[:-1]
    assert "[DONE]" not in chunks and not [chunk for chunk in chunks if "error" in chunk], "something follows the end"
    assert len({(chunk["id"], chunk["model"], chunk["created"]) for chunk in chunks}) <= 1
    for index in {choice["index"] for chunk in chunks for choice in chunk["choices"]}:
        choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        roles = [place for place, choice in enumerate(choices) if choice.get("delta", {}).get("role")]
        assert roles in ([], [0]), f"choice {index} has its role at {roles}"
        ends = [place for place, choice in enumerate(choices) if choice.get("finish_reason")]
        assert len(ends) == 1 or (not ends and not is_whole), f"choice {index} ends at {ends}"
    if is_whole:
        assert [place for place, chunk in enumerate(chunks) if chunk.get("usage")] == [len(chunks) - 1]
        assert chunks[-1]["choices"] == []


def messages_order(events: Events) -> None:
    """`message_start`, blocks one after another, `message_delta` with all counts, `message_stop`; or an error at the
    end."""
    events = [event for event in events if event["type"] != "ping"]
    if events[-1]["type"] == "error":
        events = events[:-1]
        is_whole = False
    else:
        assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"], events[-2:]
        is_whole = True
    assert not events or events[0]["type"] == "message_start", events[0]
    kinds = [event["type"] for event in events]
    assert kinds.count("message_start") == bool(events) and "error" not in kinds
    assert (kinds.count("message_delta"), kinds.count("message_stop")) == (is_whole, is_whole)
    last = _open_after(events[1 : -2 if is_whole else None])
    if is_whole:
        assert not last, f"block {last} is still open"
        usage = events[-2]["usage"]
        assert all(type(usage.get(name)) is int for name in _USAGE), f"counts are missing: {usage}"
        assert events[-2]["delta"]["stop_reason"], events[-2]


def _open_after(events: Events) -> str:
    """The kind of the block that is open at the end."""
    index, kind = -1, ""
    for event in events:
        if event["type"] == "content_block_start":
            index += 1
            assert not kind, f"block {index} begins before the one before it ends"
            kind = event["content_block"]["type"]
        elif event["type"] == "content_block_delta":
            assert event["delta"]["type"] in _DELTAS.get(kind, ()), (kind, event)
        else:
            assert event["type"] == "content_block_stop" and kind, event
            kind = ""
        assert event["index"] == index, event
    return kind


def responses_order(events: Events) -> None:
    """Numbers from 0 on; each thing that is added is done; what is done is its pieces; the last event has all items."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    if events[0]["type"] == "error":
        assert len(events) == 1, "something follows the error"
        return
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], kinds
    assert kinds[-1] in _TERMINAL and not set(kinds[:-1]) & set(_TERMINAL), kinds
    items = _Items()
    for event in events[2:-1]:
        items.take(event)
    last = events[-1]["response"]
    assert kinds[-1] == f"response.{last['status']}"
    assert {event["response"]["id"] for event in events if "response" in event} == {last["id"]}
    assert last["output"] == items.done, "the last event has other items than were done"
    if last["status"] != "failed":
        assert not items.open, f"not done: {items.open}"
        texts = [part["text"] for item in items.done if item["type"] == "message" for part in item["content"]
                 if part["type"] == "output_text"]  # fmt: skip
        assert last["output_text"] == "".join(texts)


class _Items:
    """The items of a stream, put together from its events."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self.open: dict[int, dict[str, Any]] = {}
        self._begun = 0
        self._pieces: dict[tuple[Any, ...], list[str]] = {}
        self._ended: dict[tuple[Any, ...], Any] = {}

    def take(self, event: Any) -> None:
        """One event between the first two and the last."""
        kind, index = event["type"].removeprefix("response."), event["output_index"]
        if kind == "output_item.added":
            assert index == self._begun, event
            self._begun += 1
            self.open[index] = event["item"]
        elif kind == "output_item.done":
            self._end(index, event["item"])
        else:
            assert event["item_id"] == self.open[index]["id"], f"another item than the one at {index}: {event}"
            self._take_part(kind, event)

    def _take_part(self, kind: str, event: Any) -> None:
        name, _, step = kind.rpartition(".")
        place = (event["output_index"], event.get("content_index", event.get("summary_index")))
        if name.endswith("_part"):
            if step == "added":
                assert place not in self._pieces, f"added twice: {event}"
                self._pieces[place] = []
            else:
                assert _text_of(event["part"]) == self._ended.pop(place), event
        elif step == "delta":
            self._pieces.setdefault(place, []).append(event["delta"])
        elif step == "done":
            said = next(event[field] for field in ("text", "refusal", "arguments", "input") if field in event)
            assert said == "".join(self._pieces.get(place, [])), f"done is not its pieces: {event}"
            self._ended[place] = said

    def _end(self, index: int, item: Any) -> None:
        begun = self.open.pop(index)
        assert (begun["type"], begun["id"]) == (item["type"], item["id"]), item
        for number, part in enumerate(item.get("content") or item.get("summary") or ()):
            assert "".join(self._pieces.pop((index, number))) == _text_of(part), item
        if item["type"] in ("function_call", "custom_tool_call"):
            said = item.get("arguments", item.get("input"))
            assert self._ended.pop((index, None)) == said == "".join(self._pieces.pop((index, None), [])), item
        left = [place for place in (*self._pieces, *self._ended) if place[0] == index]
        assert not left, f"said of item {index}, and not in it: {left}"
        self.done.append(item)


def _text_of(part: Any) -> str:
    return str(part["refusal"] if part["type"] == "refusal" else part["text"])
