"""Guardrails as frozen values: what a rule looks for, where, and what happens then. Pure."""

from typing import Final, Literal, get_args

import msgspec

Mode = Literal["on", "log", "off"]
"""`log` notes a match on the receipt and lets the request pass."""
Direction = Literal["input", "output", "both"]
Action = Literal["block", "redact"]
PersonalDataKind = Literal["email", "phone", "card", "iban", "ssn", "ip"]
PERSONAL_DATA_KINDS: Final[tuple[PersonalDataKind, ...]] = get_args(PersonalDataKind)


class ModelsCheck(msgspec.Struct, frozen=True, tag_field="kind", tag="models"):
    """Which models may be asked. Empty `allowed`: all but those denied. A name may end in `*`."""

    allowed: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class PatternCheck(msgspec.Struct, frozen=True, tag_field="kind", tag="pattern"):
    """An RE2 expression, searched for in each text."""

    pattern: str
    ignore_case: bool = False


class KeywordsCheck(msgspec.Struct, frozen=True, tag_field="kind", tag="keywords"):
    """Words and phrases as a whole, in any case."""

    words: tuple[str, ...]


class PersonalDataCheck(msgspec.Struct, frozen=True, tag_field="kind", tag="personal_data"):
    """Addresses and numbers of people. `phone_region` (ISO 3166, as US) also finds numbers without a country code."""

    kinds: tuple[PersonalDataKind, ...] = PERSONAL_DATA_KINDS
    phone_region: str = ""


class ModerationCheck(msgspec.Struct, frozen=True, tag_field="kind", tag="moderation"):
    """The operator's moderation model is asked. Empty `categories`: whatever it flags counts.

    `when_unavailable` says what becomes of a request that could not be judged."""

    categories: tuple[str, ...] = ()
    when_unavailable: Literal["block", "allow"] = "block"


Check = ModelsCheck | PatternCheck | KeywordsCheck | PersonalDataCheck | ModerationCheck


class Guardrail(msgspec.Struct, frozen=True):
    """One rule."""

    id: str
    name: str
    mode: Mode
    direction: Direction
    action: Action
    check: Check
