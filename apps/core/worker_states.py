"""How each gateway worker of the installation does, kept in Valkey for half a minute: workers write, /metrics reads."""

import logging
from typing import Final

import msgspec
import redis

from apps.core.redis import sync_client
from apps.core.scripts import Script

TELL_EVERY_S: Final = 5.0
KEPT_S: Final = 30
KEY: Final = "crun:worker:{name}"
SET_STATE: Final = Script.of("return redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])")
log = logging.getLogger(__name__)


class WorkerState(msgspec.Struct, frozen=True):
    """One worker, as it saw itself last."""

    shedding: int
    """0: nobody is sent away; 1: requests of low priority; 2: ordinary ones too; 3: all."""
    refused: int
    """Requests that it has sent away for its load, since it began."""
    waiting: int
    """Requests that wait at its doorway."""
    busy: float
    """The share of a processor that its event loop used."""
    late_s: float
    not_stored: dict[str, int] = {}
    """Answers of /responses that could not be stored since it began, by reason."""


def read_worker_states() -> dict[str, WorkerState]:
    """The states of all workers by name; {} without the store."""
    client = sync_client()
    try:
        names = sorted(client.scan_iter(KEY.format(name="*"), count=1_000))
        found = client.mget(names) if names else []
    except redis.RedisError as error:
        log.warning("metrics without the store: %s", type(error).__name__)
        return {}
    finally:
        client.close()
    told = zip(names, found, strict=True)
    prefix = KEY.format(name="")
    return {
        name.decode().removeprefix(prefix): msgspec.json.decode(state, type=WorkerState)
        for name, state in told
        if state is not None
    }
