"""How long a worker that is to stop may take for each of its steps: read by the worker and by whoever stops it."""

import os
from typing import Final

DRAIN_DELAY_S: Final = 0.0
DRAIN_TIMEOUT_S: Final = 300.0
CUT_S: Final = 2.0
"""An answer that is cut may take so long to say so; then its connection is closed."""
SETTLE_S: Final = 5.0
"""For the rest: what was cut is settled, the journal closed."""


def drain_delay_s() -> float:
    """How long it goes on taking new requests, while /readyz says no."""
    return float(os.environ.get("CRUN_DRAIN_DELAY_S") or DRAIN_DELAY_S)


def drain_timeout_s() -> float:
    """How long answers may go on after that."""
    return float(os.environ.get("CRUN_DRAIN_TIMEOUT_S") or DRAIN_TIMEOUT_S)


def whole_drain_s() -> float:
    """All steps together: who waits longer for its end need not kill it."""
    return drain_delay_s() + drain_timeout_s() + CUT_S + SETTLE_S
