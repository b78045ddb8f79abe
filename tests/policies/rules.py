"""Makers of guardrails for tests."""

from itertools import count
from typing import Any

from apps.policies.compiled import Guards
from apps.policies.contracts import Policy
from apps.policies.rules import (
    Check,
    Guardrail,
    KeywordsCheck,
    ModelsCheck,
    ModerationCheck,
    PatternCheck,
    PersonalDataCheck,
)
from apps.policies.scanning import Findings

_numbers = count(1)


def rule(check: Check, *, name: str = "Rule", **changes: Any) -> Guardrail:
    """A rule that is on, for both sides, and blocks."""
    values: dict[str, Any] = {"mode": "on", "direction": "both", "action": "block"} | changes
    return Guardrail(f"guard_{next(_numbers)}", name, values["mode"], values["direction"], values["action"], check)


def keywords(*words: str, **changes: Any) -> Guardrail:
    return rule(KeywordsCheck(words), **changes)


def pattern(text: str, **changes: Any) -> Guardrail:
    return rule(PatternCheck(text), **changes)


def models(*, allowed: tuple[str, ...] = (), denied: tuple[str, ...] = (), **changes: Any) -> Guardrail:
    return rule(ModelsCheck(allowed, denied), **changes)


def personal(*kinds: Any, region: str = "", **changes: Any) -> Guardrail:
    check = PersonalDataCheck(kinds, region) if kinds else PersonalDataCheck(phone_region=region)
    return rule(check, **({"action": "redact"} | changes))


def moderation(when_unavailable: Any = "block", **changes: Any) -> Guardrail:
    return rule(ModerationCheck(when_unavailable=when_unavailable), **changes)


def policy(*rules: Guardrail) -> Policy:
    return Policy(guardrails=rules)


def whole(text: str, *rules: Guardrail) -> str:
    """The text as it may go on. Raises Blocked."""
    scan = Guards(rules).whole(Findings(), "output")
    return scan.feed(text) + scan.end()


def streamed(pieces: list[str], *rules: Guardrail) -> str:
    """The same of a text that comes in pieces."""
    scan = Guards(rules).stream(Findings())
    return "".join([scan.feed(piece) for piece in pieces]) + scan.end()
