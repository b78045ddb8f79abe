"""The shape of an API key: `ak_`, 26 random base62 characters, 6 of checksum; `ak_test` begins a sandbox key. Pure."""

import secrets
import zlib

PREFIX = "ak_"
SANDBOX_PREFIX = "ak_test"
RANDOM_LENGTH = 26
CHECKSUM_LENGTH = 6
KEY_LENGTH = len(PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH
VISIBLE_PREFIX_LENGTH = 8
VISIBLE_SUFFIX_LENGTH = 4

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MEMBERS = frozenset(_ALPHABET)


def new_key(*, sandbox: bool = False) -> str:
    """A fresh key of 35 characters with 154 random bits, 130 for a sandbox key.

    No live key looks like a sandbox key."""
    mark = SANDBOX_PREFIX.removeprefix(PREFIX)
    body = _random(RANDOM_LENGTH)
    while body.startswith(mark):
        body = _random(RANDOM_LENGTH)
    if sandbox:
        body = mark + body[len(mark) :]
    return PREFIX + body + checksum(body)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def checksum(body: str) -> str:
    """CRC-32 of the random part in base62, six characters: lets a scanner or the door refuse a fake without look-up."""
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def is_well_formed(key: str) -> bool:
    """Whether this can be one of our keys at all. Costs no look-up."""
    if len(key) != KEY_LENGTH or not key.startswith(PREFIX) or not key.isascii():
        return False
    body = key[len(PREFIX) : len(PREFIX) + RANDOM_LENGTH]
    return _MEMBERS.issuperset(body) and checksum(body) == key[len(PREFIX) + RANDOM_LENGTH :]
