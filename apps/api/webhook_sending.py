"""Sending webhooks: what is due is leased, signed, posted with bounds on everything, and its outcome written down."""

import asyncio
import logging
import ssl
import time
from collections.abc import Sequence
from typing import Final

import httpx
from django.conf import settings
from django.utils import timezone

from apps.api.webhook_addresses import PLACE_TIMEOUT_S, Lookups, NotLookedUp
from apps.api.webhook_signing import signed_headers
from apps.api.webhook_transport import CheckedTransport
from apps.billing.alerts.addresses import check_url
from apps.billing.alerts.apart import each
from apps.billing.alerts.endpoints import Try, conclude, lease_deliveries, live_secrets, postpone
from apps.billing.alerts.work_tables import LEASE, end_turn, take_turn
from apps.billing.models import WebhookDelivery
from apps.core.addresses import Address, AddressRefused
from apps.core.errors import ConfigurationError, InvalidInput

BATCH: Final = 100
TRY_TIMEOUT_S: Final = 10.0
"""For one try in all: name, connection, TLS, request and the head of the answer. The body of the answer is not read."""
CONNECT_TIMEOUT_S: Final = 5.0
SLICE_S: Final = 20.0
"""A task begins new batches for so long; the next one goes on."""
TURN: Final = "webhooks"
BATCH_TIMEOUT_S: Final = TRY_TIMEOUT_S + PLACE_TIMEOUT_S + 6.0
"""For a batch in all: no try may hold it up longer, whatever hangs. The rest is for tidying up."""
TURN_S: Final = SLICE_S + 2 * BATCH_TIMEOUT_S
GONE: Final = 410
USER_AGENT: Final = "CRUN-Webhooks/1.0"
log = logging.getLogger(__name__)

if LEASE.total_seconds() <= TURN_S:
    raise AssertionError("a lease must outlive the whole turn in which it was taken")

_lookups: Final = Lookups()

Headers = dict[str, str] | str
"""The signed headers of a try, or a sentence that says why there are none."""


def send_due() -> int:
    """Send what is due, for about SLICE_S at most; returns how many tries were made. One process at a time does this,
    so that receivers that hang hold up one worker and no more."""
    if not take_turn(TURN, TURN_S):
        return 0
    try:
        deadline, tries = time.monotonic() + SLICE_S, 0
        while time.monotonic() < deadline and (sent := send_batch()):
            tries += sent
        return tries
    finally:
        end_turn(TURN)


def send_batch(limit: int = BATCH) -> int:
    """Lease up to `limit` messages, try each once, all at the same time; returns how many were leased.

    What could not be tried, because the resolver was busy with others, is put off and counts as no try."""
    leased = lease_deliveries(limit, timezone.now())
    if not leased:
        return 0
    ready = [(delivery, _headers(delivery)) for delivery in leased]
    outcomes = asyncio.run(_post_all(ready))
    each(zip(leased, outcomes, strict=True), _write_down, work="writing down how a webhook ended")
    return len(leased)


def _write_down(tried: tuple[WebhookDelivery, Try | None]) -> None:
    delivery, outcome = tried
    if outcome is None:
        postpone(delivery)
    else:
        conclude(delivery, outcome)


def _headers(delivery: WebhookDelivery) -> Headers:
    """The signed headers of this try; a sentence when the message cannot be signed."""
    now = timezone.now()
    try:
        secrets = live_secrets(delivery.endpoint, now)
    except ConfigurationError as error:
        log.error("a webhook cannot be signed", extra={"endpoint": delivery.endpoint_id, "reason": error.message})
        return "the secret of the endpoint cannot be opened; rotate it"
    signed = signed_headers(delivery.id, delivery.body, sent_at=int(now.timestamp()), secrets=secrets)
    return {**signed, "content-type": "application/json", "user-agent": USER_AGENT}


async def _post_all(ready: Sequence[tuple[WebhookDelivery, Headers]]) -> list[Try | None]:
    tls = httpx.create_ssl_context(trust_env=False)
    tries = [asyncio.ensure_future(_try(delivery, headers, tls)) for delivery, headers in ready]
    await asyncio.wait(tries, timeout=BATCH_TIMEOUT_S)
    return [_outcome(one) for one in tries]


def _outcome(one: "asyncio.Task[Try | None]") -> Try | None:
    """How the try ended. Whatever one customer's URL or receiver brought about, the others' outcomes count."""
    bug = one.exception() if one.done() else TimeoutError()
    if bug is None:
        return one.result()
    log.error("a webhook could not be sent", exc_info=bug)
    return Try(at=timezone.now(), code=None, error="the message could not be sent", duration_ms=0)


async def _try(delivery: WebhookDelivery, headers: Headers, tls: ssl.SSLContext) -> Try | None:
    """How the try ended; None when it could not begin."""
    started, at = time.monotonic(), timezone.now()
    code: int | None = None
    if isinstance(headers, str):
        error = headers
    else:
        try:
            code = await _post_in_time(delivery, headers, tls)
            error = "" if 200 <= code < 300 else _told(code)
        except NotLookedUp:
            return None
        except TimeoutError:
            error = f"no answer within {TRY_TIMEOUT_S:g} seconds"
        except AddressRefused as refused:
            error = str(refused)
        except InvalidInput as refused:
            error = refused.message
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as failure:
            error = _plain(failure)
    duration_ms = int((time.monotonic() - started) * 1000)
    return Try(at=at, code=code, error=error, duration_ms=duration_ms, is_gone=code == GONE)


async def _post_in_time(delivery: WebhookDelivery, headers: dict[str, str], tls: ssl.SSLContext) -> int:
    """As `post`, in TRY_TIMEOUT_S; the wait for a place in the resolver is ours and is not taken from the receiver's
    time. Raises NotLookedUp, too."""
    timeout = httpx.Timeout(TRY_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TRY_TIMEOUT_S) as limit:

        def begin() -> None:
            limit.reschedule(loop.time() + TRY_TIMEOUT_S)

        async def resolve(host: str, port: int) -> Sequence[Address]:
            limit.reschedule(loop.time() + PLACE_TIMEOUT_S + TRY_TIMEOUT_S)
            return await _lookups.resolve(delivery.organization_id, host, port, on_start=begin)

        transport = CheckedTransport(resolve=resolve, allow_private=settings.WEBHOOKS_ALLOW_PRIVATE, tls=tls)
        async with httpx.AsyncClient(
            transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
        ) as client:
            return await post(client, delivery.endpoint.url, body=delivery.body, headers=headers)


async def post(client: httpx.AsyncClient, url: str, *, body: str, headers: dict[str, str]) -> int:
    """Post one message; returns the status of the answer, of which nothing else is read. Raises httpx.HTTPError,
    AddressRefused and InvalidInput."""
    target = check_url(url, allow_private=settings.WEBHOOKS_ALLOW_PRIVATE)
    async with client.stream("POST", target, content=body.encode(), headers=headers) as response:
        return response.status_code


def _told(code: int) -> str:
    if 300 <= code < 400:
        return f"answered {code}: redirects are not followed, name the right URL"
    return f"answered {code}"


def _plain(failure: Exception) -> str:
    """What went wrong, in words that tell nothing about our own network."""
    text = str(failure)
    if isinstance(failure, httpx.TimeoutException):
        return "the connection took too long"
    if isinstance(failure, httpx.ConnectError):
        is_tls = "certificate" in text.lower() or "ssl" in text.lower()
        return f"TLS failed: {text}" if is_tls else "the connection failed"
    return f"the connection broke: {type(failure).__name__}"
