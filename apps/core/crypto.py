"""Secrets: keyed digests for look-up and sealed credentials, each with a ring of named keys."""

import base64
import binascii
import hmac
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.core.errors import ConfigurationError

_NONCE_BYTES = 12
KEY_BYTES = 32


def parse_key_ring(text: str, *, variable: str) -> dict[str, bytes]:
    """`id:base64,id:base64`, newest first -> keys by id, in that order. Each key has 32 bytes.

    Raises ConfigurationError naming the variable, never the value."""
    ring: dict[str, bytes] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, separator, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise ConfigurationError(f"{variable}: key {name!r} is not base64") from error
        if not separator or not name or len(key) != KEY_BYTES:
            raise ConfigurationError(f"{variable}: each entry is ID:BASE64 of exactly {KEY_BYTES} bytes")
        if name in ring:
            raise ConfigurationError(f"{variable}: key {name!r} stands there twice")
        ring[name] = key
    if not ring:
        raise ConfigurationError(f"{variable} is empty: run `crun up` once, or set it")
    return ring


def keyed_digests(secret: str, ring: Mapping[str, bytes]) -> list[str]:
    """`id$hex` of HMAC-SHA256 under every pepper of the ring, newest first: the first is the one to store."""
    encoded = secret.encode()
    return [f"{name}${hmac.digest(pepper, encoded, 'sha256').hex()}" for name, pepper in ring.items()]


def seal(plaintext: str, *, bound_to: str, ring: Mapping[str, bytes]) -> str:
    """AES-256-GCM under the newest key: `id$base64(nonce + ciphertext)`, readable only with the same `bound_to`."""
    name, key = next(iter(ring.items()))
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + AESGCM(key).encrypt(nonce, plaintext.encode(), bound_to.encode())
    return f"{name}${base64.b64encode(sealed).decode()}"


def unseal(sealed: str, *, bound_to: str, ring: Mapping[str, bytes]) -> str:
    """The plaintext of `seal`. Raises ConfigurationError when key, text or binding do not fit."""
    name, _, encoded = sealed.partition("$")
    if name not in ring:
        raise ConfigurationError(f"CRUN_ENCRYPTION_KEYS has no key {name!r}, which a stored credential needs")
    try:
        raw = base64.b64decode(encoded, validate=True)
        return AESGCM(ring[name]).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], bound_to.encode()).decode()
    except (binascii.Error, InvalidTag, ValueError) as error:
        raise ConfigurationError(f"the credential bound to {bound_to} cannot be opened; enter it again") from error


def seal_bytes(plaintext: bytes, *, bound_to: str, ring: Mapping[str, bytes]) -> bytes:
    """The same for any number of longer contents, each under a key of its own: `id$` + nonce + ciphertext.

    A key that is derived from the binding makes it impossible that random nonces of one key ever meet."""
    name, key = next(iter(ring.items()))
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_derived(key, bound_to)).encrypt(nonce, plaintext, bound_to.encode())
    return b"".join((name.encode(), b"$", nonce, sealed))


def unseal_bytes(sealed: bytes, *, bound_to: str, ring: Mapping[str, bytes]) -> bytes:
    """The plaintext of `seal_bytes`. Raises ConfigurationError when key, content or binding do not fit."""
    name, _, raw = sealed.partition(b"$")
    key = ring.get(name.decode("utf-8", "replace"))
    if key is None:
        raise ConfigurationError("CRUN_ENCRYPTION_KEYS has no longer the key under which a content was sealed")
    try:
        nonce, ciphertext = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
        return AESGCM(_derived(key, bound_to)).decrypt(nonce, ciphertext, bound_to.encode())
    except (InvalidTag, ValueError) as error:
        raise ConfigurationError("a sealed content cannot be opened with this binding") from error


def _derived(key: bytes, bound_to: str) -> bytes:
    return hmac.digest(key, b"crun sealed bytes\x00" + bound_to.encode(), "sha256")
