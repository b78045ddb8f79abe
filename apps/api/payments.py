"""Stripe's webhook: `POST /webhooks/stripe`. An event is answered with 200 only when it is committed."""

import logging
from typing import Final

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from apps.billing.payments.contracts import ProviderDisabled
from apps.billing.payments.inbox import receive
from apps.billing.payments.providers import STRIPE
from apps.core.errors import ConfigurationError, DomainError

MAX_BODY_BYTES: Final = 512 * 1024
"""Events of payments have a few KiB."""
log = logging.getLogger(__name__)


@csrf_exempt  # the signature says who sends it
@require_POST
def stripe_webhook(request: HttpRequest) -> HttpResponse:
    """400 for what is not proven or contradicts our payment, 404 without a key, 413 for too much, 503 to try again."""
    body = request.read(MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        return _refuse(413, "payload_too_large")
    try:
        status = receive(STRIPE, body, request.headers.get("Stripe-Signature", ""))
    except ProviderDisabled as error:
        return _refuse(404, error.reason)
    except ConfigurationError as error:
        log.error("an event of Stripe was not looked at: %s", error.message)
        return _refuse(503, error.reason)
    except DomainError as error:
        log.warning("an event of Stripe was refused: %s", error.message)
        return _refuse(400, error.reason)
    except (OperationalError, InterfaceError) as error:
        log.error("an event of Stripe could not be kept: %s", str(error).splitlines()[0])
        return _refuse(503, "database_away")
    return JsonResponse({"received": True, "status": status})


def _refuse(status: int, code: str) -> HttpResponse:
    return JsonResponse({"error": {"code": code}}, status=status)
