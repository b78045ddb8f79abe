"""Periodic work on payments: each task may run twice at once, and catches up by itself after any pause."""

import logging
from collections.abc import Callable
from typing import Any

from celery import shared_task
from django.db import close_old_connections

from apps.billing.payments.auto_top_ups import top_up_all, top_up_when_wanted
from apps.billing.payments.cards import save_missing_cards
from apps.billing.payments.contracts import ProviderAway
from apps.billing.payments.inbox import work_on_due
from apps.billing.payments.providers import cards_are_accepted
from apps.billing.payments.refunds import resume_refunds
from apps.billing.payments.top_ups import follow_checkouts

log = logging.getLogger(__name__)


@shared_task(name="billing.auto_top_up")
def auto_top_up(organization_id: str | None = None) -> None:
    """Charge the saved cards of organizations whose credit ran low; of one organization when it is named."""
    close_old_connections()
    if not cards_are_accepted():
        return
    if organization_id is not None:
        top_up_when_wanted(organization_id)
    else:
        _in_turn(top_up_all)


@shared_task(name="billing.follow_payments")
def follow_payments() -> None:
    """Events that wait, pages whose end nobody told us, refunds without an answer, cards that are not saved yet."""
    close_old_connections()
    if cards_are_accepted():
        for step in (work_on_due, follow_checkouts, resume_refunds, save_missing_cards):
            _in_turn(step)


def _in_turn(step: Callable[[], Any]) -> None:
    """One step of several: whatever it raises, the next one has its turn."""
    try:
        step()
    except ProviderAway as error:
        log.warning("payments wait for their provider: %s", error.message)
    except Exception:  # the edge of a task: whatever breaks one step, the others are not to wait for it
        log.exception("a step of the work on payments failed and goes on with the next")
