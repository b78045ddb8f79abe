"""Scheduled maintenance: routes that an operator keeps free of new requests for a while. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from apps.catalog.contracts import Maintenance, Target
from apps.gateway.errors import MODEL_IN_MAINTENANCE, GatewayError


def window_at(target: Target, now: float) -> Maintenance | None:
    """The window that the route is in at `now` (Unix seconds), of several the one that ends last."""
    inside = (window for window in target.maintenance if window.starts_at <= now < window.ends_at)
    return max(inside, key=lambda window: window.ends_at, default=None)


def in_service(model_id: str, targets: Sequence[Target], now: float) -> Sequence[Target]:
    """The routes that may have new requests at `now` (Unix seconds), in their order.

    Raises GatewayError (503), with the time until the first of them is back, when there is none."""
    windows = [window_at(target, now) for target in targets]
    serving = [target for target, window in zip(targets, windows, strict=True) if window is None]
    if serving or not targets:
        return serving
    back_at = min(window.ends_at for window in windows if window is not None)
    told = datetime.fromtimestamp(back_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    message = f"The model '{model_id}' is in scheduled maintenance until {told} UTC."
    raise GatewayError(MODEL_IN_MAINTENANCE, message, param="model", retry_after_ms=int(1000 * (back_at - now)) + 1)
