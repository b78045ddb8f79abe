"""Liveness and readiness: whether the process runs, and whether a new request would be served."""

import orjson

from apps.core.errors import Unavailable
from apps.gateway.runtime import current_runtime
from apps.gateway.server.answer import Answer, JsonBytes
from apps.gateway.server.stopping import STOPPING


def health_answer(path: str) -> Answer:
    """The answer of /healthz and /readyz."""
    reason = _why_not_ready() if path == "/readyz" else None
    content = {"status": "ok"} if reason is None else {"status": "unavailable", "reason": reason}
    status = 200 if reason is None else 503
    return JsonBytes(orjson.dumps(content), status=status, headers={"cache-control": "no-store"})


def _why_not_ready() -> str | None:
    if STOPPING.is_asked:
        return "this process stops"
    try:
        return current_runtime().why_not_ready()
    except Unavailable as error:
        return error.message
