"""What the processes of a stage do: workers, shippers and short errands, each in a process of its own.

The module is loaded once by the process that all of them are forked from, with the stage's environment; it knows
nothing of pytest."""

import os
import socket
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from multiprocessing import connection as pipes
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import Any

from django.core.management import call_command
from django.db import connection

import crun.asgi
import crun.serve
from apps.accounts.models import Organization
from apps.accounts.organizations import create_organization, default_project
from apps.billing import ledger
from apps.billing.grants import Credit, grant_credit
from apps.billing.models import GrantSource
from apps.billing.proofs import verify
from apps.billing.tasks import settle_usage
from apps.catalog.document import parse_catalog
from apps.catalog.importing import import_catalog
from apps.core import crash_points
from apps.core.limits import Limits
from apps.keys.issuing import create_key
from apps.usage.partitions import ensure_upcoming_partitions


def serve(listener: socket.socket, crash: str, log: str) -> None:
    """An ASGI worker on the stage's listening socket, exactly as `python -m crun.serve`."""
    _begin(crash, log)
    sys.argv = ["crun.serve", "--fd", str(listener.detach())]
    crun.serve.main()


def settle(crash: str, log: str) -> None:
    """One run of the task that ships and posts."""
    _begin(crash, log)
    settle_usage()


def keep_settling(pause_s: float, log: str) -> None:
    """Ship and post until killed."""
    _begin("", log)
    while True:
        settle_usage()
        threading.Event().wait(pause_s)


def errand(answer: Connection, log: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run a function and send what it returns."""
    _begin("", log)
    answer.send(function(*arguments))


def migrate() -> None:
    call_command("migrate", verbosity=0)
    ensure_upcoming_partitions()


def offer(document: str) -> None:
    """Bring a catalog document into the database."""
    import_catalog(parse_catalog(document, source="the test", known_providers=set()))


def found(name: str, credit_nanos: int, limits: Limits, owner_limits: dict[str, Any]) -> tuple[str, str]:
    """A new organization with credit and one key: its id and the key's secret."""
    organization = create_organization(name)
    for field, value in owner_limits.items():
        setattr(organization, field, value)
    organization.save()
    if credit_nanos:
        top_up(organization.id, credit_nanos, f"found-{organization.id}")
    return organization.id, create_key(default_project(organization), name="Money", limits=limits).secret


def add_key(organization_id: str, limits: Limits) -> str:
    """Another key of the organization: its secret."""
    owner = Organization.objects.get(pk=organization_id)
    return create_key(default_project(owner), name="Another", limits=limits).secret


def top_up(organization_id: str, amount_nanos: int, key: str, expires_at: datetime | None = None) -> str:
    """More credit, once for each key; the id of its grant."""
    credit = Credit(amount_nanos, GrantSource.PURCHASED, expires_at)
    return str(grant_credit(organization_id, credit, idempotency_key=key, reason="Test credit").id)


def balance(organization_id: str) -> int:
    return ledger.balance_nanos(organization_id)


def failed_proofs() -> list[tuple[str, str]]:
    """The rules of the ledger that do not hold, with what breaks them."""
    return [(proof.name, proof.detail) for proof in verify() if not proof.holds]


def _begin(crash: str, log: str) -> None:
    """Forked from a process that is armed for never: die at `crash`, with the test, and write into `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    connection.close()
    armed = crash_points.crash_point
    assert isinstance(armed, crash_points.ArmedPoint), "the stage's environment does not arm its processes"
    if crash:
        armed.arm(crash)
    threading.Thread(target=_die_with_the_test, daemon=True).start()


def _die_with_the_test() -> None:
    parent = parent_process()
    assert parent is not None
    pipes.wait([parent.sentinel])
    os._exit(1)
