"""Time-ordered public ids: a prefix that names the kind, 48 bits of Unix milliseconds, 80 random bits."""

import os
import re
from datetime import UTC, date, datetime
from time import time_ns

_ID = re.compile(r"[a-z]{2,8}_([0-9a-f]{12})[0-9a-f]{20}")
ID_LENGTH = 40


def new_id(prefix: str) -> str:
    """A fresh id such as `key_0192f3…`: sortable by time of creation, 32 hex digits after the prefix."""
    return f"{prefix}_{time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def created_ms(public_id: str) -> int:
    """When an id was made, in Unix milliseconds. Raises ValueError for anything else."""
    match = _ID.fullmatch(public_id)
    if match is None:
        raise ValueError(f"not an id of ours: {public_id!r}")
    return int(match.group(1), 16)


def created_at(public_id: str) -> datetime:
    """The UTC moment, to the millisecond, at which an id was made. Raises ValueError for anything else."""
    try:
        return datetime.fromtimestamp(created_ms(public_id) / 1000, UTC)
    except (OverflowError, OSError) as error:
        raise ValueError(f"not an id of ours: {public_id!r}") from error


def utc_day(public_id: str) -> date:
    """The UTC day in which an id was made: what usage is partitioned by."""
    return created_at(public_id).date()
