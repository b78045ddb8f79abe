"""The guardrails of an answer that is streamed: its texts are read on their way, and wait until a rule can tell. Pure.

What comes in are events of Chat Completions under our own names, and so is what goes out. Each text of each choice
(its content, its reasoning, the arguments of a call) is read by itself, from its beginning to its end."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from apps.gateway.dialects.sse import event_data, events
from apps.gateway.dialects.texts import Step, text_at, texts_within
from apps.gateway.dialects.vendor_json import read_json, write_json
from apps.gateway.errors import GatewayError
from apps.gateway.guardrails.reading import refusal
from apps.policies.guarding import Guarding
from apps.policies.rules import Guardrail
from apps.policies.scanning import Blocked, TextScan

JUDGED_CHARACTERS: Final = 2_000
"""So much of a stream waits and is judged at once, where a rule moderates answers."""
_CALLS: Final = "tool_calls"
_SAYS_NOTHING: Final = frozenset(("index", "type"))
Path = tuple[Step, ...]


class StreamGuard:
    """Made for one stream."""

    def __init__(self, guarding: Guarding) -> None:
        self._guarding = guarding
        self._hides_tokens = guarding.guards.changes_output
        self._choices: dict[object, _ChoiceGuard] = {}
        self._chunk: dict[str, Any] = {}
        self.failure: GatewayError | None = None
        """A rule blocks the answer: nothing more of it goes on."""
        self.output_count = 0
        """Words that went on."""
        self._judge = guarding.judge if guarding.guards.output_moderation else None
        self._unjudged: list[bytes] = []
        self._texts: list[str] = []

    def feed(self, block: bytes) -> bytes:
        """What may go on of these events. Sets `failure`: what came before that is still to be sent."""
        return b"".join([self._event(event) for event in events(block)])

    def end(self) -> bytes:
        """Nothing more comes: what still waited."""
        if self.failure is not None:
            return b""
        ready = []
        for index, guard in self._choices.items():
            ready += [self._piece(index, delta) for delta in guard.rest()]
            if self._is_blocked(guard):
                break
        return b"".join(ready)

    def left(self) -> bytes:
        """What waited when the answer broke off, and may go on; nothing where a model was still to judge it."""
        return b"" if self._judge is not None else self.end()

    async def judged(self, ready: bytes, *, is_last: bool = False) -> bytes:
        """What of these events, and of those that waited, may go on for the moderation model. Sets `failure`.

        Where a rule has blocked the answer, what came before that waits for nothing more."""
        if self._judge is None:
            return ready
        self._unjudged.append(ready)
        is_over = is_last or self.failure is not None
        if not is_over and sum(map(len, self._texts)) < JUDGED_CHARACTERS:
            return b""
        texts, self._texts = self._texts, []
        try:
            await self._judge(texts, "output")
        except GatewayError as error:
            self.failure = self.failure or error
            self._unjudged.clear()
            return b""
        self.output_count += _words(texts)
        ready = b"".join(self._unjudged)
        self._unjudged.clear()
        return ready

    def check(self) -> None:
        """Raise the failure, if there is one."""
        if self.failure is not None:
            raise self.failure

    def _event(self, event: bytes) -> bytes:
        if self.failure is not None:
            return b""
        chunk = read_json(event_data(event))
        if not chunk.get("choices"):
            return event + b"\n\n"
        self._chunk = {name: value for name, value in chunk.items() if name not in ("choices", "obfuscation")}
        choices, ready = [], []
        for choice in chunk["choices"]:
            ready += self._read(choice)
            if choice.get("finish_reason") or not _says_nothing(choice.get("delta")):
                choices.append(choice)
            if self.failure is not None:
                break
        if choices:
            ready.append(self._written({**chunk, "choices": choices}))
        return b"".join(ready)

    def _read(self, choice: dict[str, Any]) -> list[bytes]:
        """Have in a piece of a choice what may go on; the events that go before it. Sets `failure`."""
        index = choice.get("index")
        guard = self._choices.get(index)
        if guard is None:
            guard = self._choices[index] = _ChoiceGuard(self._guarding)
        if self._hides_tokens and choice.get("logprobs") is not None:
            choice["logprobs"] = None  # they would tell what waits, or was redacted
        deltas = guard.read(choice.get("delta") or {}, is_last=bool(choice.get("finish_reason")))
        if self._is_blocked(guard):
            choice["finish_reason"] = None  # it has no end: an error follows
        return [self._piece(index, delta) for delta in deltas]

    def _is_blocked(self, guard: "_ChoiceGuard") -> bool:
        """Whether a rule blocks a text of this choice. Sets `failure`."""
        if guard.blocked_by is None:
            return False
        self.failure = refusal(guard.blocked_by, "output")
        return True

    def _piece(self, index: object, delta: dict[str, Any]) -> bytes:
        return self._written({**self._chunk, "choices": [{"index": index, "delta": delta, "finish_reason": None}]})

    def _written(self, chunk: dict[str, Any]) -> bytes:
        texts = [place.text for choice in chunk["choices"] for place in texts_within(choice.get("delta") or {})]
        if self._judge is None:
            self.output_count += _words(texts)
        else:
            self._texts += texts
        return b"data: " + write_json(chunk) + b"\n\n"


class _ChoiceGuard:
    """The texts of one choice."""

    def __init__(self, guarding: Guarding) -> None:
        self._guarding = guarding
        self._scans: dict[Path, TextScan] = {}
        self.blocked_by: Guardrail | None = None
        """The rule that blocks one of the texts: nothing behind the forbidden place goes on."""

    def read(self, delta: dict[str, Any], *, is_last: bool) -> list[dict[str, Any]]:
        """Have in the delta what may go on; the pieces that go before it. Sets `blocked_by`.

        A field that begins ends the text of the one before, but calls of tools may be told side by side."""
        places = list(texts_within(delta))
        groups = {_group(place.path) for place in places} | ({_CALLS} & delta.keys())
        ended = [path for path in self._scans if is_last or (groups and _group(path) not in groups)]
        said = {place.path for place in places}
        before = self._ends(path for path in ended if path not in said)
        for place in places:
            scan = self._scans.get(place.path)
            if scan is None:
                scan = self._scans[place.path] = self._guarding.stream()
            place.put(self._passed(scan.last if is_last else scan.feed, place.text))
        return before

    def rest(self) -> list[dict[str, Any]]:
        """What still waits of each text, which ends here. Sets `blocked_by`."""
        return self._ends(self._scans)

    def _ends(self, paths: Iterable[Path]) -> list[dict[str, Any]]:
        return [text_at(path, text) for path in paths if (text := self._passed(self._scans[path].last, ""))]

    def _passed(self, scanned: Callable[[str], str], text: str) -> str:
        """What of a text may go on: of the one that a rule blocks, what stands before the forbidden place."""
        if self.blocked_by is not None:
            return ""
        try:
            return scanned(text)
        except Blocked as blocked:
            self.blocked_by = blocked.guardrail
            return blocked.before


def _words(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _group(path: Path) -> Step | Path:
    return _CALLS if path[0] == _CALLS else path


def _says_nothing(value: Any) -> bool:
    """Whether a piece of a choice has no more in it than places for text."""
    if isinstance(value, dict):
        return all(name in _SAYS_NOTHING or _says_nothing(inner) for name, inner in value.items())
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    return value in ("", None)
