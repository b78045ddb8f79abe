"""Why a request was cancelled: its client left, a bound was reached, or this process stops."""

import asyncio
from typing import Final

from apps.gateway.errors import GATEWAY_STOPPING, UPSTREAM_TIMEOUT, GatewayError
from apps.gateway.server.deadline import Deadline, Wait

CLIENT_GONE: Final = "client gone"
"""The message of our own cancellation for a client that left. A server that stops cancels with another one."""


def told_to_client(error: asyncio.CancelledError, deadline: Deadline) -> GatewayError | None:
    """The failure that explains a cancellation to the client; None when nobody is there to be told."""
    if deadline.expired is not None:
        if deadline.expired is Wait.CLIENT or not deadline.took_effect():
            return None
        return GatewayError(UPSTREAM_TIMEOUT, f"The upstream took too long ({deadline.expired_wait}).")
    if error.args and error.args[0] != CLIENT_GONE:
        return GatewayError(GATEWAY_STOPPING, "This gateway is stopping; send the request again.")
    return None
