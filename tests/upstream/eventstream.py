"""Writes application/vnd.amazon.eventstream, by its specification and apart from the code that reads it."""

import struct
import zlib
from typing import Any

import orjson


def encoded(headers: dict[str, str], payload: bytes) -> bytes:
    """One message. All headers are text."""
    packed = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def message(kind: str, told: Any) -> bytes:
    """An event, as Bedrock sends it."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encoded(headers, orjson.dumps(told))


def exception(kind: str, told: str) -> bytes:
    """An exception that the service knows."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encoded(headers, orjson.dumps({"message": told}))


def failed(code: str, told: str) -> bytes:
    """An error that the service does not know."""
    return encoded({":message-type": "error", ":error-code": code, ":error-message": told}, b"")
