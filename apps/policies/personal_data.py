"""Finding addresses and numbers of people: an expression for what looks like one, and a check of what it is. Pure."""

import ipaddress
from functools import lru_cache, partial
from typing import Final

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from apps.core.errors import InvalidInput
from apps.policies.expressions import AFTER, BEFORE, Accept, Expression
from apps.policies.rules import PersonalDataKind

LABELS: Final[dict[PersonalDataKind, str]] = {
    "email": "EMAIL", "phone": "PHONE", "card": "CARD", "iban": "IBAN", "ssn": "SSN", "ip": "IP",
}  # fmt: skip
"""What stands in a placeholder."""
NAMES: Final[dict[PersonalDataKind, str]] = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "card": "payment card numbers",
    "iban": "IBANs",
    "ssn": "US social security numbers",
    "ip": "IP addresses",
}
_MEMORY: Final = 8 << 20
_LETTER: Final = r"a-zA-Z\x{C0}-\x{24F}\x{370}-\x{52F}"
"""Latin, Greek and Cyrillic: where words have no space between them, the text before an address would belong to it."""
_EMAIL: Final = (
    rf"[{_LETTER}0-9_][{_LETTER}0-9._%+'\-]{{0,63}}@"
    rf"(?:[{_LETTER}0-9](?:[{_LETTER}0-9\-]{{0,38}}[{_LETTER}0-9])?\.){{1,5}}[{_LETTER}]{{2,24}}"
)
"""With bounds, so that the longest that is found fits into what a stream holds back."""
_PHONE: Final = BEFORE + r"((?:\+|\()?\d[\d ().\-/]{5,24}\d)"
_CARD: Final = BEFORE + r"(\d(?:[ \-]?\d){11,18})"
_IBAN: Final = BEFORE + r"((?i)[a-z]{2}\d{2}(?: ?[a-z0-9]){11,30})"
_SSN: Final = BEFORE + r"(\d{3}[ \-]\d{2}[ \-]\d{4})" + AFTER
_IP: Final = r"[^\pL\pN_.:]((?:\d{1,3}\.){3}\d{1,3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})"
_CARD_LENGTHS: Final = {"2": (16,), "3": (14, 15, 16), "4": (13, 16, 19), "5": (16,), "6": tuple(range(13, 20))}
"""By the first digit: Mastercard, Diners and American Express and JCB, Visa, Mastercard, Maestro and others."""
_MOST_PHONE_DIGITS: Final = 15
"""E.164's."""
_LEAST_PHONE_DIGITS: Final = 7
_LEAST_HEX_DIGITS: Final = 4
"""Of an IPv6 address: `::1` and the `::` of programs tell of nobody."""


def check_region(region: str) -> str:
    """The region in the form that the library knows. Raises InvalidInput for one that it does not."""
    known = region.strip().upper()
    if known and known not in phonenumbers.SUPPORTED_REGIONS:
        raise InvalidInput(f"{region[:10]!r} is no country code: write two letters such as US or DE")
    return known


@lru_cache(maxsize=64)
def finder(kind: PersonalDataKind, phone_region: str = "") -> Expression:
    """What finds this kind of data."""
    if kind == "email":
        return Expression(_EMAIL, memory=_MEMORY)
    expression, accept = _FINDERS[kind]
    if kind == "phone":
        accept = partial(_phone, region=phone_region or None)
    return Expression(expression, accept=accept, is_inner=True, memory=_MEMORY)


def _ends(text: str, start: int, end: int) -> list[int]:
    """Where it may end, the longest first: after a letter or digit that none follows."""
    return [
        last
        for last in range(end, start, -1)
        if text[last - 1].isalnum() and not (last < len(text) and text[last].isalnum())
    ]


def _phone(text: str, start: int, end: int, *, region: str | None = None) -> int:
    for last in _ends(text, start, end):
        written = text[start:last]
        digits = sum(map(str.isdigit, written))
        if digits < _LEAST_PHONE_DIGITS:
            return 0
        if digits <= _MOST_PHONE_DIGITS + 2 and _is_phone(written, region):
            return last
    return 0


def _is_phone(written: str, region: str | None) -> bool:
    if written.startswith("00"):
        written = f"+{written[2:]}"
    if region is None and not written.startswith("+"):
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(written, region))
    except phonenumbers.NumberParseException:
        return False


def _card(text: str, start: int, end: int) -> int:
    for last in _ends(text, start, end):
        digits = text[start:last].replace(" ", "").replace("-", "")
        if len(digits) in _CARD_LENGTHS.get(digits[0], ()) and luhn.is_valid(digits):
            return last
    return 0


def _iban(text: str, start: int, end: int) -> int:
    for last in _ends(text, start, end):
        if iban.is_valid(text[start:last]):
            return last
    return 0


def _ssn(text: str, start: int, end: int) -> int:
    return end if ssn.is_valid(text[start:end].replace(" ", "-")) else 0


def _ip(text: str, start: int, end: int) -> int:
    written = text[start:end]
    after = text[end : end + 2]
    if after[:1].isalnum() or (after[:1] in ".:" and after[1:].isalnum()):
        return 0
    if ":" in written:
        written = written.rstrip(":") if not written.endswith("::") else written
        if sum(each not in ":" for each in written) < _LEAST_HEX_DIGITS:
            return 0
    try:
        ipaddress.ip_address(written)
    except ValueError:
        return 0
    return start + len(written)


_FINDERS: Final[dict[PersonalDataKind, tuple[str, Accept]]] = {
    "phone": (_PHONE, _phone), "card": (_CARD, _card), "iban": (_IBAN, _iban), "ssn": (_SSN, _ssn), "ip": (_IP, _ip),
}  # fmt: skip
