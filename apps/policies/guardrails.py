"""Keeping guardrails: what cannot be is refused with the reason, and every change is announced to the gateways."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

import msgspec
from django.conf import settings
from django.db import transaction

from apps.accounts.models import Organization, User
from apps.core.errors import Conflict, InvalidInput
from apps.core.names import check_name, is_plain
from apps.policies.changing import announce_policy
from apps.policies.compiled import MAX_PROGRAMS, MAX_RULES, compiled, programs
from apps.policies.models import GuardrailRule
from apps.policies.personal_data import NAMES, check_region
from apps.policies.reading import guardrail_of
from apps.policies.rules import (
    Action,
    Check,
    Direction,
    Guardrail,
    KeywordsCheck,
    Mode,
    ModelsCheck,
    ModerationCheck,
    PatternCheck,
    PersonalDataCheck,
)

NAME_LENGTH: Final = 60
MAX_NAMED: Final = 200
"""Models or categories that a rule names."""
MAX_NAMED_LENGTH: Final = 128


@dataclass(frozen=True)
class Draft:
    """What a rule is to be. `key_id` is that of the one key that it holds for, or None for all of the organization."""

    name: str
    check: Check
    mode: Mode = "on"
    direction: Direction = "both"
    action: Action = "block"
    key_id: str | None = None


@transaction.atomic
def add_guardrail(organization: Organization, draft: Draft, *, created_by: User | None = None) -> Any:
    """A new rule, in every gateway within a second.

    Raises InvalidInput for one that cannot be, Conflict for too many."""
    row = GuardrailRule(organization=organization, created_by=created_by)
    return _saved(row, draft)


@transaction.atomic
def change_guardrail(row: Any, draft: Draft) -> Any:
    """Another rule in the place of this one. Raises as `add_guardrail`."""
    return _saved(row, draft)


@transaction.atomic
def set_mode(row: Any, mode: str) -> None:
    """Switch the rule on or off, or let it only log. Raises InvalidInput for another word, and as for a new rule."""
    if mode not in get_args(Mode):
        raise InvalidInput("a rule is on, off or only logs")
    _saved(row, _draft_of(row, cast("Mode", mode)))


@transaction.atomic
def delete_guardrail(row: Any) -> None:
    """Forget the rule. Verdicts on receipts keep its name."""
    row.delete()
    announce_policy(row.organization_id)


def guardrails_of(rows: Sequence[Any]) -> tuple[Guardrail, ...]:
    """Stored rules as the gateways have them, without those that are off."""
    return tuple(guardrail_of(row) for row in rows if row.mode != "off")


def moderation_is_offered() -> bool:
    """Whether the operator has set up who moderates."""
    return bool(settings.MODERATION)


def in_words(row: Any) -> str:
    """What the rule looks for, in a line."""
    match guardrail_of(row).check:
        case ModelsCheck() as check:
            parts = [_listed("only ", check.allowed), _listed("not ", check.denied)]
            return "; ".join(filter(None, parts))
        case PatternCheck() as check:
            return check.pattern
        case KeywordsCheck() as check:
            return _listed("", check.words)
        case PersonalDataCheck() as check:
            return ", ".join(NAMES[kind] for kind in check.kinds)
        case ModerationCheck() as check:
            return _listed("", check.categories) or "whatever the moderation model flags"


def _listed(before: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{before}{shown}{more}" if names else ""


def _draft_of(row: Any, mode: Mode) -> Draft:
    rule = guardrail_of(row)
    return Draft(rule.name, rule.check, mode, rule.direction, rule.action, row.key_id)


def _saved(row: GuardrailRule, draft: Draft) -> GuardrailRule:
    organization_id = row.organization_id
    # Two at once would each see room for one more.
    organization = Organization.objects.select_for_update().get(pk=organization_id)
    check = _checked(draft.check)
    is_blocking = isinstance(check, ModelsCheck | ModerationCheck)
    row.name = check_name(draft.name, of="a guardrail", longest=NAME_LENGTH)
    row.kind = str(check.__struct_config__.tag)
    row.mode = draft.mode
    row.direction = "input" if isinstance(check, ModelsCheck) else draft.direction
    row.action = "block" if is_blocking else draft.action
    row.check_settings = {name: value for name, value in msgspec.to_builtins(check).items() if name != "kind"}
    row.key_id = _key_of(organization, draft.key_id)
    _check_bounds(row)
    row.save()
    announce_policy(organization_id)
    return row


def _key_of(organization: Organization, key_id: str | None) -> str | None:
    if key_id is None:
        return None
    if not organization.keys.filter(pk=key_id).exists():
        raise InvalidInput("the key is none of this organization")
    return key_id


def _check_bounds(row: GuardrailRule) -> None:
    others = list(GuardrailRule.objects.for_organization(row.organization_id).exclude(pk=row.pk))
    if len(others) >= MAX_RULES:
        raise Conflict(f"an organization has {MAX_RULES} guardrails at most, with those of its keys")
    used = programs(guardrails_of([*others, row]))
    if row.kind == "pattern" and used > MAX_PROGRAMS:
        message = f"the expressions of an organization have {MAX_PROGRAMS:,} steps together at most"
        raise Conflict(f"{message}, and these would have {used:,}")


def _checked(check: Check) -> Check:
    """The check as it is stored. Raises InvalidInput for one that cannot be."""
    match check:
        case ModelsCheck():
            check = ModelsCheck(_names(check.allowed, "a model's name"), _names(check.denied, "a model's name"))
            if not check.allowed and not check.denied:
                raise InvalidInput("no model is named")
        case KeywordsCheck():
            check = KeywordsCheck(tuple(dict.fromkeys(word.strip() for word in check.words if word.strip())))
        case PersonalDataCheck():
            check = PersonalDataCheck(check.kinds, check_region(check.phone_region))
        case ModerationCheck():
            if not moderation_is_offered():
                raise InvalidInput("the operator of this installation has not set up moderation")
            check = ModerationCheck(_names(check.categories, "a category"), check.when_unavailable)
    compiled(Guardrail("", "", "on", "both", "block", check))
    return check


def _names(names: Sequence[str], what: str) -> tuple[str, ...]:
    cleaned = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if len(cleaned) > MAX_NAMED:
        raise InvalidInput(f"a rule names {MAX_NAMED} at most")
    for name in cleaned:
        if len(name) > MAX_NAMED_LENGTH or not is_plain(name) or "*" in name[:-1]:
            raise InvalidInput(f"{what} is one line of {MAX_NAMED_LENGTH} characters at most, with a * at its end only")
    return cleaned
