"""Settling requests whose process died, by the published table of partial streams. Pure."""

import time

from apps.billing.rating import cost_of
from apps.core.ids import created_at
from apps.usage.contracts import Outcome, RequestClosed, RequestOpened, TokenCounts


def close_orphan(opened: RequestOpened, output_tokens: int | None) -> RequestClosed:
    """The end of a request that nobody saw. `output_tokens` is the last checkpoint; None when nothing had arrived.

    Nothing arrived: costs nothing. Otherwise the estimated input and the output of the checkpoint, which is never more
    than what was delivered, and nothing beyond the hold."""
    tokens = TokenCounts() if output_tokens is None else TokenCounts(input=opened.input_estimate, output=output_tokens)
    billed, overage = opened.split(cost_of(opened, tokens))
    elapsed_s = time.time() - created_at(opened.request_id).timestamp()
    return RequestClosed(
        opened=opened,
        outcome=Outcome.INTERRUPTED,
        http_status=200 if output_tokens is not None else 502,
        tokens=tokens,
        cost_nanos=billed,
        estimated=output_tokens is not None,
        duration_ms=max(0, int(elapsed_s * 1000)),
        error_code="gateway_interrupted",
        overage_nanos=overage,
    )
