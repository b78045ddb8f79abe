"""The guardrails of a policy, ready to be used. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from apps.core.errors import InvalidInput
from apps.policies.expressions import keywords, pattern
from apps.policies.personal_data import LABELS, finder
from apps.policies.rules import (
    Direction,
    Guardrail,
    KeywordsCheck,
    ModelsCheck,
    ModerationCheck,
    PatternCheck,
    PersonalDataCheck,
)
from apps.policies.scanning import (
    STREAM_LONGEST,
    STREAM_STEP,
    WHOLE_LONGEST,
    WHOLE_STEP,
    Findings,
    Side,
    TextRule,
    TextScan,
)

MAX_RULES: Final = 50
"""Of an organization, with those of its keys."""
MAX_PROGRAMS: Final = 5_000
"""Instructions of all expressions of an organization together: what one step of reading may cost everybody."""
REDACTED: Final = "REDACTED"


class Guards:
    """Rules by what they are asked for. Without one of a kind, its tuple is empty."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        """Takes up to a quarter of a second. Raises InvalidInput for a rule that cannot be compiled."""
        ready = {each: compiled(each) for each in guardrails if each.mode != "off"}
        self.models = tuple(each for each in guardrails if isinstance(each.check, ModelsCheck))
        self.input = tuple(_text_rules(ready, "input"))
        self.output = tuple(_text_rules(ready, "output"))
        self.steps = sum(rule.finder.program for rules in ready.values() for rule in rules)
        """Instructions of all expressions: what keeping them costs."""
        self.input_moderation = tuple(_moderating(guardrails, "input"))
        self.output_moderation = tuple(_moderating(guardrails, "output"))
        self.changes_output = any(rule.guardrail.mode == "on" for rule in self.output)

    def refusing(self, model_id: str) -> Guardrail | None:
        """The first rule that is on and forbids the model."""
        return next((each for each in self.models if each.mode == "on" and forbids(each, model_id)), None)

    def logging(self, model_id: str) -> Iterator[Guardrail]:
        """Rules that would forbid the model, were they on."""
        return (each for each in self.models if each.mode == "log" and forbids(each, model_id))

    def whole(self, findings: Findings, side: Side) -> TextScan:
        """For one text that is there."""
        rules = self.input if side == "input" else self.output
        return TextScan(rules, findings, side, step=WHOLE_STEP, longest=WHOLE_LONGEST)

    def stream(self, findings: Findings) -> TextScan:
        """For one text of an answer that is still being written."""
        return TextScan(self.output, findings, "output", step=STREAM_STEP, longest=STREAM_LONGEST)


def forbids(guardrail: Guardrail, model_id: str) -> bool:
    """Whether a rule about models is against this one."""
    check = guardrail.check
    if not isinstance(check, ModelsCheck):
        return False
    if any(_names(name, model_id) for name in check.denied):
        return True
    return bool(check.allowed) and not any(_names(name, model_id) for name in check.allowed)


def compiled(guardrail: Guardrail) -> list[TextRule]:
    """What a rule looks for in texts. Raises InvalidInput, saying what is wrong with it."""
    match guardrail.check:
        case PatternCheck() as check:
            return [TextRule(guardrail, pattern(check.pattern, ignore_case=check.ignore_case), REDACTED)]
        case KeywordsCheck() as check:
            return [TextRule(guardrail, keywords(check.words), REDACTED)]
        case PersonalDataCheck() as check:
            if not check.kinds:
                raise InvalidInput("no kind of personal data is chosen")
            return [TextRule(guardrail, finder(kind, check.phone_region), LABELS[kind]) for kind in check.kinds]
    return []


def programs(guardrails: Sequence[Guardrail]) -> int:
    """The instructions of all expressions that people wrote among these. Raises InvalidInput."""
    rules = (rule for each in guardrails if isinstance(each.check, PatternCheck) for rule in compiled(each))
    return sum(rule.finder.program for rule in rules)


def _text_rules(ready: Mapping[Guardrail, list[TextRule]], side: Direction) -> Iterator[TextRule]:
    """Those that block come first: what they forbid is not worth redacting."""
    for wanted in ("block", "redact"):
        for each, rules in ready.items():
            if each.direction in (side, "both") and each.action == wanted:
                yield from rules


def _moderating(guardrails: Sequence[Guardrail], side: Direction) -> Iterator[tuple[Guardrail, ModerationCheck]]:
    for each in guardrails:
        if isinstance(each.check, ModerationCheck) and each.direction in (side, "both"):
            yield each, each.check


def _names(name: str, model_id: str) -> bool:
    """Whether a name in a rule, which may end in `*`, is that of the model."""
    return model_id.startswith(name[:-1]) if name.endswith("*") else model_id == name
