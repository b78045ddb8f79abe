"""Reading a text with an organization's rules while it arrives: what is found does not depend on how it was cut. Pure.

A text is examined in steps. What begins in a step is looked for once so much of the text behind it is known as a match
may be long, so each decision is made on the same characters whether they came at once or one by one."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from apps.policies.expressions import Checks, Expression
from apps.policies.pieces import Piece
from apps.policies.rules import Guardrail

WHOLE_STEP: Final = 8_192
"""Characters of a whole text that are examined at once: the most that one turn of an event loop does."""
WHOLE_LONGEST: Final = 4_096
"""Characters of the longest match in a whole text."""
STREAM_STEP: Final = 64
STREAM_LONGEST: Final = 320
"""Characters of the longest match in a stream. It holds back so many, and a step."""
HOLD_BACK: Final = STREAM_STEP + STREAM_LONGEST + 1
"""No more characters than this wait in a stream."""
MAX_CHECKS: Final = 5_000
"""Candidates of one request (numbers, mostly) that are checked in every digit; more of them count as they look."""

_CONTEXT: Final = 2
"""Characters that stay before those to be examined: one that a match may need to see, and one so that this is not taken
for the beginning of the text."""

Side = Literal["input", "output"]
Effect = Literal["blocked", "redacted", "logged", "unchecked"]


class TextRule(NamedTuple):
    """What a guardrail looks for, compiled; one of several for personal data. `label` stands in placeholders."""

    guardrail: Guardrail
    finder: Expression
    label: str


class Blocked(Exception):
    """A rule that is on forbids the text. The message names the rule, never what it found."""

    def __init__(self, guardrail: Guardrail, before: str = "") -> None:
        super().__init__(guardrail.name)
        self.guardrail = guardrail
        self.before = before
        """What of the text stands before the forbidden place and may go on, as far as it did not go on yet."""


class Findings:
    """What was found in one request and its answer: verdicts to be recorded, and names for what was redacted.

    The texts that were found live here as long as the request, so that the same one gets the same placeholder."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[str, Side], tuple[Guardrail, Effect]] = {}
        self.checks = Checks(MAX_CHECKS)
        self._placeholders: dict[tuple[str, str], str] = {}
        self._numbers: dict[str, int] = {}

    def note(self, guardrail: Guardrail, side: Side, effect: Effect) -> None:
        """A rule had its say; the first thing that it said stays unless it blocks in the end."""
        if effect == "blocked" or (guardrail.id, side) not in self.verdicts:
            self.verdicts[guardrail.id, side] = (guardrail, effect)

    def placeholder(self, label: str, text: str) -> str:
        """What stands for a text from now on: `[EMAIL_1]`."""
        known = self._placeholders.get((label, text))
        if known is None:
            number = self._numbers[label] = self._numbers.get(label, 0) + 1
            known = self._placeholders[label, text] = f"[{label}_{number}]"
        return known


class TextScan:
    """One text. `feed` gives back what may be passed on; `end` the rest of it. Both raise Blocked."""

    __slots__ = ("_buffer", "_covered", "_ends", "_findings", "_lead", "_longest", "_rules", "_side", "_step")

    def __init__(self, rules: Sequence[TextRule], findings: Findings, side: Side, *, step: int, longest: int) -> None:
        self._rules = rules
        self._findings = findings
        self._side = side
        self._step = step
        self._longest = longest
        self._buffer = ""
        self._lead = 0
        """Characters at the beginning of the buffer that were passed on, by which borders are seen."""
        self._ends = [0] * len(rules)
        """Where the last match of each rule ended, in the buffer."""
        self._covered = 0
        """Up to here a placeholder stands for what is in the buffer."""

    def feed(self, text: str) -> str:
        """More of the text."""
        self._buffer += text
        ready = []
        try:
            while len(self._buffer) >= self._lead + self._step + self._longest + 1:
                ready.append(self._examine(self._step))
        except Blocked as blocked:
            blocked.before = "".join([*ready, blocked.before])
            raise
        return "".join(ready)

    def last(self, text: str) -> str:
        """The rest of the text, as `feed` and `end`."""
        ready = self.feed(text)
        try:
            return ready + self.end()
        except Blocked as blocked:
            blocked.before = ready + blocked.before
            raise

    def end(self) -> str:
        """Nothing more comes."""
        rest = self._examine(len(self._buffer) - self._lead)
        self._buffer, self._lead, self._covered = "", 0, 0
        self._ends = [0] * len(self._rules)
        return rest

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return len(self._buffer) <= self._lead

    def _examine(self, characters: int) -> str:
        """The next so many characters, as they may be passed on."""
        if not characters:
            return ""
        begin, stop = self._lead, self._lead + characters
        limit = min(stop + self._longest, len(self._buffer))
        piece = Piece(self._buffer[: limit + 1])
        found, forbidden = self._found(piece, begin, stop, limit)
        if forbidden is not None:
            at, guardrail = forbidden
            self._findings.note(guardrail, self._side, "blocked")
            raise Blocked(guardrail, self._rewritten([each for each in found if each[0] < at], begin, at))
        ready = self._rewritten(found, begin, stop)
        shift = max(stop - _CONTEXT, 0)
        self._buffer, self._lead = self._buffer[shift:], stop - shift
        self._ends = [max(end - shift, 0) for end in self._ends]
        self._covered = max(self._covered - shift, 0)
        return ready

    def _found(
        self, piece: Piece, begin: int, stop: int, limit: int
    ) -> tuple[list[tuple[int, int, int]], tuple[int, Guardrail] | None]:
        """Begin, end and rule of all that is to be redacted, in their order; and the first place that is forbidden, of
        the rule that says so. Rules that block come first, so nothing behind that place is looked for."""
        found: list[tuple[int, int, int]] = []
        forbidden = None
        for index, rule in enumerate(self._rules):
            guardrail = rule.guardrail
            for start, end in rule.finder.spans(
                piece, max(begin, self._ends[index]), stop, limit, self._findings.checks
            ):
                if forbidden is not None and start >= forbidden[0]:
                    break
                if guardrail.mode == "log":
                    self._findings.note(guardrail, self._side, "logged")
                    break
                if guardrail.action == "block":
                    forbidden = (start, guardrail)
                    break
                self._findings.note(guardrail, self._side, "redacted")
                self._ends[index] = end
                found.append((start, -end, index))
        return sorted(found), forbidden

    def _rewritten(self, found: list[tuple[int, int, int]], begin: int, stop: int) -> str:
        """The characters from `begin` to `stop`, with a placeholder where something was found.

        What overlaps has one placeholder together, that of what begins first."""
        ready, at = [], max(begin, self._covered)
        for start, negative_end, index in found:
            if start >= self._covered:
                ready.append(self._buffer[at:start])
                ready.append(self._findings.placeholder(self._rules[index].label, self._buffer[start:-negative_end]))
            self._covered = at = max(self._covered, -negative_end)
        ready.append(self._buffer[at:stop] if at < stop else "")
        return "".join(ready)
