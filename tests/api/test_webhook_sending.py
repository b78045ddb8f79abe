"""Sending webhooks over real sockets: what arrives, what counts as an answer, and what no receiver can do to us."""

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from apps.api import webhook_addresses, webhook_sending
from apps.api.webhook_addresses import AddressRefused, Lookups
from apps.api.webhook_sending import send_batch, send_due
from apps.api.webhook_transport import CheckedTransport
from apps.billing.alerts.endpoints import PUT_OFF, create_endpoint, rotate_secret, send_test
from apps.billing.alerts.raising import raise_alert
from apps.billing.models import AlertKind, DeliveryState, WebhookDelivery, WebhookEndpoint
from apps.core.addresses import Address
from tests.api.certificates import authority, server_context
from tests.api.receiver import dripping, endless, receiving, silent, status
from tests.billing.alerts.spending import Customer, customer
from tests.billing.books import at_once

pytestmark = pytest.mark.django_db
KINDS = [AlertKind.CREDIT_LOW]


@pytest.fixture
def acme(settings: Any) -> Customer:
    settings.WEBHOOKS_ALLOW_PRIVATE = True
    return customer()


def only() -> WebhookDelivery:
    delivery: WebhookDelivery = WebhookDelivery.objects.get()
    return delivery


def failure_of(who: Customer, url: str) -> str:
    """What is written down after one try at a test event for this URL."""
    endpoint, _ = create_endpoint(who.organization, "https://hooks.example.com/", kinds=KINDS)
    WebhookEndpoint.objects.update(url=url)
    send_test(endpoint)
    assert send_batch() == 1
    delivery = only()
    assert delivery.state == DeliveryState.PENDING
    assert (WebhookEndpoint.objects.get().failing_since is not None) == (delivery.last_code != 410)
    return delivery.last_error


def test_an_alert_arrives_signed_with_its_body(acme: Customer) -> None:
    with receiving() as receiver:
        _, secret = create_endpoint(acme.organization, receiver.url, kinds=KINDS)
        raise_alert(acme.organization.id, AlertKind.CREDIT_LOW, key="k", subject="Low", details={"balance_usd": "4.20"})
        assert send_due() == 1
        assert send_due() == 0
    (request,) = receiver.requests
    content = Webhook(secret).verify(request.body, request.headers)
    assert (content["type"], content["data"]["balance_usd"]) == ("credit.low", "4.20")
    assert request.headers["webhook-id"] == only().id
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    delivered = only()
    assert (delivered.state, delivered.last_code, delivered.attempts) == (DeliveryState.DELIVERED, 204, 1)


def test_old_and_new_secret_verify_while_they_change(acme: Customer) -> None:
    with receiving() as receiver:
        endpoint, old = create_endpoint(acme.organization, receiver.url, kinds=KINDS)
        new = rotate_secret(endpoint)
        send_test(endpoint)
        send_batch()
    (request,) = receiver.requests
    for secret in (old, new):
        Webhook(secret).verify(request.body, request.headers)


def test_a_second_try_has_the_same_id_and_body_and_a_new_timestamp(acme: Customer) -> None:
    with receiving(status(500)) as receiver:
        endpoint, secret = create_endpoint(acme.organization, receiver.url, kinds=KINDS)
        send_test(endpoint)
        send_batch()
        WebhookDelivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))
        time.sleep(1.1)
        send_batch()
    first, second = receiver.requests
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    Webhook(secret).verify(second.body, second.headers)
    assert [entry["code"] for entry in only().tries] == [500, 500]


@pytest.mark.parametrize("code", [400, 401, 404, 429, 500, 503])
def test_every_answer_but_a_success_is_a_failure(acme: Customer, code: int) -> None:
    with receiving(status(code)) as receiver:
        assert failure_of(acme, receiver.url) == f"answered {code}"


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(acme: Customer, code: int) -> None:
    with receiving() as elsewhere, receiving(status(code, location=elsewhere.url)) as receiver:
        assert "redirects are not followed" in failure_of(acme, receiver.url)
        assert len(receiver.requests) == 1
    assert elsewhere.connections == 0


def test_gone_switches_the_endpoint_off(acme: Customer) -> None:
    with receiving(status(410)) as receiver:
        failure_of(acme, receiver.url)
    assert not WebhookEndpoint.objects.get().enabled


def test_an_endless_answer_costs_nothing(acme: Customer) -> None:
    with receiving(endless) as receiver:
        endpoint, _ = create_endpoint(acme.organization, receiver.url, kinds=KINDS)
        send_test(endpoint)
        started = time.monotonic()
        send_batch()
    assert only().state == DeliveryState.DELIVERED
    assert time.monotonic() - started < 5


def test_headers_without_end_are_too_much(acme: Customer) -> None:
    with receiving(status(200, **{f"x-{number}": "y" * 10_000 for number in range(60)})) as receiver:
        assert failure_of(acme, receiver.url).startswith("the connection broke")


@pytest.mark.parametrize("answer", [silent(3), dripping(3)], ids=["silent", "dripping"])
def test_a_receiver_that_holds_us_up_is_left(acme: Customer, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(webhook_sending, "TRY_TIMEOUT_S", 0.7)
    with receiving(answer) as receiver:
        started = time.monotonic()
        assert failure_of(acme, receiver.url) in ("no answer within 0.7 seconds", "the connection took too long")
        assert time.monotonic() - started < 3  # which is how long it would go on


def test_slow_receivers_are_waited_for_together(acme: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sending, "TRY_TIMEOUT_S", 1.0)
    with receiving(silent(3)) as receiver:
        for number in range(10):
            endpoint, _ = create_endpoint(acme.organization, f"{receiver.url}/{number}", kinds=KINDS)
            send_test(endpoint)
        started = time.monotonic()
        assert send_batch() == 10
        assert time.monotonic() - started < 8  # one after the other: 10


def test_a_closed_port_and_a_name_without_address_are_told_without_detail(acme: Customer) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert failure_of(acme, f"http://127.0.0.1:{bound.getsockname()[1]}/") == "the connection failed"


def test_a_private_address_is_not_connected_to(acme: Customer, settings: Any) -> None:
    settings.WEBHOOKS_ALLOW_PRIVATE = False
    with receiving() as receiver:
        assert failure_of(acme, f"https://127.0.0.1:{receiver.port}/") == "this address is not a public one"
    assert receiver.connections == 0


def test_a_secret_that_cannot_be_opened_is_told(acme: Customer) -> None:
    with receiving() as receiver:
        endpoint, _ = create_endpoint(acme.organization, receiver.url, kinds=KINDS)
        WebhookEndpoint.objects.update(sealed_secret="t9$AAAA")
        send_test(endpoint)
        send_batch()
    assert receiver.connections == 0
    assert "rotate" in only().last_error


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names that begin with "slow" take longer than any of our bounds; all others lead to this machine."""
    end = threading.Event()

    def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
        if host.startswith("slow"):
            end.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(webhook_addresses, "RESOLVE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(webhook_addresses, "PLACE_TIMEOUT_S", 0.5)
    monkeypatch.setattr(webhook_sending, "_lookups", Lookups())
    yield
    end.set()


@pytest.mark.usefixtures("slow_names")
def test_slow_names_of_one_customer_hold_up_nobody_else(acme: Customer) -> None:
    slow = customer("Slow")
    for number in range(10):
        endpoint, _ = create_endpoint(slow.organization, f"http://slow{number}.example.com:9/", kinds=KINDS)
        send_test(endpoint)
    with receiving() as receiver:
        endpoint, _ = create_endpoint(acme.organization, f"http://good.example.org:{receiver.port}/", kinds=KINDS)
        send_test(endpoint)
        started = time.monotonic()
        assert send_batch() == 11
        assert time.monotonic() - started < 15, "the batch does not wait for threads that hang"
    assert WebhookDelivery.objects.get(endpoint=endpoint).state == DeliveryState.DELIVERED


@pytest.mark.usefixtures("slow_names")
def test_what_was_not_looked_up_was_not_tried(acme: Customer) -> None:
    for number in range(6):
        endpoint, _ = create_endpoint(acme.organization, f"http://slow{number}.example.com:9/", kinds=KINDS)
        send_test(endpoint)
    send_batch()
    rows = WebhookDelivery.objects.values_list("attempts", "endpoint__failing_since", "last_error")
    tried = [row for row in rows if row[0] == 1]
    spared = [row for row in rows if row[0] == 0]
    assert len(tried) == 4
    assert all(since is not None and error == "the connection failed" for _, since, error in tried)
    assert spared == [(0, None, "")] * 2
    due = WebhookDelivery.objects.filter(attempts=0, next_at__gt=timezone.now(), state=DeliveryState.PENDING)
    assert due.filter(next_at__lte=timezone.now() + PUT_OFF).count() == 2


def test_a_surprise_of_one_message_leaves_the_outcomes_of_the_others(
    acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = webhook_sending.check_url

    def surprising(url: str, **options: Any) -> str:
        if "odd" in url:
            raise ZeroDivisionError
        return whole(url, **options)

    monkeypatch.setattr(webhook_sending, "check_url", surprising)
    with receiving() as receiver:
        for name in ("odd", "plain"):
            send_test(create_endpoint(acme.organization, f"{receiver.url}/{name}", kinds=KINDS)[0])
        send_batch()
    ended = WebhookDelivery.objects.order_by("id").values_list("state", "last_error")
    assert list(ended) == [("pending", "the message could not be sent"), ("delivered", "")]


def test_an_outcome_that_cannot_be_written_leaves_those_of_the_others(
    acme: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = webhook_sending.conclude

    def surprising(delivery: WebhookDelivery, outcome: Any) -> bool:
        if delivery.endpoint.url.endswith("odd"):
            raise ZeroDivisionError
        return whole(delivery, outcome)

    monkeypatch.setattr(webhook_sending, "conclude", surprising)
    with receiving() as receiver:
        for name in ("odd", "plain"):
            send_test(create_endpoint(acme.organization, f"{receiver.url}/{name}", kinds=KINDS)[0])
        assert send_batch() == 2
    assert list(WebhookDelivery.objects.order_by("id").values_list("state", flat=True)) == ["pending", "delivered"]


@pytest.mark.django_db(transaction=True)
def test_workers_at_once_make_one_try_each_message(transactional_db: None, settings: Any) -> None:
    settings.WEBHOOKS_ALLOW_PRIVATE = True
    busy = [customer(f"Busy {number}") for number in range(3)]
    with receiving() as receiver:
        for number in range(6):
            who = busy[number % 3]
            endpoint, _ = create_endpoint(who.organization, f"{receiver.url}/{number}", kinds=KINDS)
            for _ in range(5):
                send_test(endpoint)
        assert sum(at_once([send_batch] * 4)) == 30
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(ids) == len(set(ids)) == 30


# --- the transport: what was checked is what is connected to -------------------------------------------------------


class Rebinding:
    """A name that is public when it is asked first and private from then on."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [ip_address(text) for text in answer]


def post(transport: CheckedTransport, url: str) -> httpx.Response:
    async def go() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=2) as client:
            return await client.post(url, content=b"{}")

    return asyncio.run(go())


def test_a_name_is_resolved_once_and_the_checked_address_is_used() -> None:
    with receiving() as receiver:
        names = Rebinding(["127.0.0.1"], ["203.0.113.1"])
        answer = post(CheckedTransport(allow_private=True, resolve=names), f"http://hooks.example.com:{receiver.port}/")
    assert (answer.status_code, names.asked) == (204, 1)
    assert receiver.requests[0].headers["host"] == f"hooks.example.com:{receiver.port}"


def test_a_name_that_has_become_private_is_refused() -> None:
    with receiving() as receiver, pytest.raises(AddressRefused):
        post(CheckedTransport(resolve=Rebinding(["127.0.0.1"])), f"https://hooks.example.com:{receiver.port}/")
    assert receiver.connections == 0


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        names = Rebinding(["127.0.0.1"])
        post(CheckedTransport(allow_private=True, resolve=names), f"http://hooks.example.com:{receiver.port}/")
    assert (proxy.connections, receiver.connections) == (0, 1)


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS of a receiver called hooks.example.com, and of a sender that trusts its authority."""
    issuer = authority()
    return server_context(issuer, "hooks.example.com", tmp_path), issuer.client_context()


def test_tls_speaks_with_the_name_although_the_address_is_connected_to(certified: Any) -> None:
    server, client = certified
    with receiving(tls=server) as receiver:
        transport = CheckedTransport(allow_private=True, resolve=Rebinding(["127.0.0.1"]), tls=client)
        assert post(transport, f"https://hooks.example.com:{receiver.port}/x").status_code == 204
    assert receiver.requests[0].path == "/x"


def test_a_certificate_of_another_name_is_refused(certified: Any) -> None:
    server, client = certified
    with receiving(tls=server) as receiver:
        transport = CheckedTransport(allow_private=True, resolve=Rebinding(["127.0.0.1"]), tls=client)
        with pytest.raises(httpx.ConnectError, match="certificate"):
            post(transport, f"https://other.example.com:{receiver.port}/x")
    assert receiver.requests == []


def test_a_certificate_of_nobody_is_refused_and_told(certified: Any, acme: Customer) -> None:
    server, _ = certified
    with receiving(tls=server) as receiver:
        assert failure_of(acme, f"https://localhost:{receiver.port}/").startswith("TLS failed")
