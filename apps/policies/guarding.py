"""The guardrails of one request on its way: the compiled rules, and what they found so far. Pure."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from apps.policies.compiled import Guards
from apps.policies.rules import Guardrail
from apps.policies.scanning import Blocked, Effect, Findings, Side, TextScan


class Verdict(NamedTuple):
    """What a rule did, as a record keeps it: never what it found."""

    rule: str
    name: str
    direction: Side
    action: Effect


Judge = Callable[[Sequence[str], Side], Awaitable[None]]


class Guarding:
    """Made for one request; requests without guardrails have none."""

    __slots__ = ("findings", "guards", "is_recorded", "judge", "judge_request")

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.judge: Judge | None = None
        """Asks a moderation model about texts; None where no rule wants that."""
        self.judge_request: Callable[[], Awaitable[None]] | None = None
        """Asks it about the request, once that holds what it needs; None where no rule wants that."""
        self.is_recorded = False
        """Whether an open record of the request will have the verdicts."""
        self.findings = Findings()

    def read(self, text: str, side: Side) -> str:
        """A whole text as it may go on. Raises Blocked. A long one is better read in a thread."""
        return self.guards.whole(self.findings, side).last(text)

    def stream(self) -> TextScan:
        """For one text of an answer that is still being written."""
        return self.guards.stream(self.findings)

    def check_model(self, model_id: str) -> None:
        """Raises Blocked for a model that may not be asked."""
        refusing = self.guards.refusing(model_id)
        if refusing is not None:
            self.findings.note(refusing, "input", "blocked")
            raise Blocked(refusing)

    def note_model(self, model_id: str) -> None:
        """The model that was asked in the end: rules that only log say what they think of it."""
        for guardrail in self.guards.logging(model_id):
            self.note(guardrail, "input", "logged")

    def note(self, guardrail: Guardrail, side: Side, effect: Effect) -> None:
        """A rule had its say."""
        self.findings.note(guardrail, side, effect)

    @property
    def verdicts(self) -> list[Verdict]:
        """What all rules did, in the order in which they first did something."""
        return [
            Verdict(guardrail.id, guardrail.name, side, effect)
            for (_, side), (guardrail, effect) in self.findings.verdicts.items()
        ]
