"""A stand-in for Stripe over real HTTP: its objects, idempotency keys, hosted page, and events signed by its scheme.

The official library talks to it unchanged. What it did is the truth of these tests: `charged_cents`, `events`."""

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from hmac import new as hmac
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]
KEY = "sk_test_" + "x" * 24
SECRET = "whsec_" + "s" * 32
CARDS = {
    "4242": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2099},
    "0341": {"brand": "visa", "last4": "0341", "exp_month": 1, "exp_year": 2098},
}


def nested(pairs: list[tuple[str, str]]) -> Json:
    """`a[b][0][c]=d` as Stripe reads it."""
    tree: Json = {}
    for name, value in pairs:
        first, *rest = re.findall(r"[^\[\]]+", name)
        place, path = tree, [first, *rest]
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = value
    return tree


def signature(payload: str, secret: str, *, at: float | None = None) -> str:
    """The Stripe-Signature header: written from its documentation, not with the library."""
    moment = int(time.time() if at is None else at)
    return f"t={moment},v1={hmac(secret.encode(), f'{moment}.{payload}'.encode(), sha256).hexdigest()}"


class StripeFault(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, **error: Any) -> None:
        super().__init__(error)
        self.status, self.error = status, error


class StandInStripe:
    """The account: all objects by id, all events in their order, and what it is told to do wrong."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.objects: dict[str, Json] = {}
        self.events: list[Json] = []
        self.requests: list[tuple[str, str, Json, dict[str, str]]] = []
        self.faults: list[tuple[str, str]] = []
        self.declines = False
        self.asks_bank = False
        """The bank wants a confirmation by its customer: intents stay open."""
        self.refunds_wait = False
        self.webhook_url = ""
        self.secrets = [SECRET]
        self.url = ""
        self._kept: dict[str, tuple[str, int, Json]] = {}
        self._serial = count(1)

    # --- what tests do at Stripe --------------------------------------------------------------------------------------

    def fail_next(self, path: str, how: str) -> None:
        """The next request to a path beginning so: `before` or `after` (work done, answer lost), `500`, `429`."""
        self.faults.append((path, how))

    def charged_cents(self) -> int:
        return sum(each["amount"] for each in self.of("payment_intent") if each["status"] == "succeeded")

    def of(self, kind: str) -> list[Json]:
        return [each for each in self.objects.values() if each["object"] == kind]

    def pay(self, session_id: str, *, card: str = "4242", tax_id: str = "") -> list[Json]:
        """Somebody pays on the hosted page; returns the events of it."""
        with self.lock:
            first = len(self.events)
            session = self.objects[session_id]
            intent = self._intent(session["amount_total"], session["currency"], session["customer"])
            intent["metadata"] = dict(session["_payment"].get("metadata", {}))
            method = self._card(session["customer"], card)
            if session["_payment"].get("setup_future_usage") == "off_session":
                self.emit("payment_method.attached", method)
            else:
                method["customer"] = None
            intent.update(status="succeeded", amount_received=intent["amount"], payment_method=method["id"])
            ids = [{"type": "eu_vat", "value": tax_id}] if tax_id else []
            details = {"name": "Acme Ltd", "email": "pay@acme.example", "address": {"country": "DE"}, "tax_ids": ids}
            session.update(
                status="complete", payment_status="paid", payment_intent=intent["id"], customer_details=details
            )
            self.emit("payment_intent.succeeded", intent)
            self.emit("checkout.session.completed", session)
            return self.events[first:]

    def expire(self, session_id: str) -> Json:
        session = self.objects[session_id]
        session["status"] = "expired"
        return self.emit("checkout.session.expired", session)

    def refund_by_hand(self, intent_id: str, amount: int) -> list[Json]:
        """A refund in Stripe's dashboard."""
        first = len(self.events)
        self.make_refund({"payment_intent": intent_id, "amount": str(amount)})
        return self.events[first:]

    def dispute(self, intent_id: str, amount: int | None = None) -> tuple[Json, list[Json]]:
        """The payer's bank takes the money back."""
        intent = self.objects[intent_id]
        first = len(self.events)
        dispute = self._new(
            "dp",
            "dispute",
            amount=amount or intent["amount"],
            currency=intent["currency"],
            payment_intent=intent_id,
            reason="fraudulent",
            status="needs_response",
        )
        self.emit("charge.dispute.created", dispute)
        self.emit("charge.dispute.funds_withdrawn", dispute)
        return dispute, self.events[first:]

    def win(self, dispute: Json) -> list[Json]:
        first = len(self.events)
        dispute["status"] = "won"
        self.emit("charge.dispute.funds_reinstated", dispute)
        self.emit("charge.dispute.closed", dispute)
        return self.events[first:]

    def emit(self, kind: str, thing: Json) -> Json:
        content = {name: value for name, value in thing.items() if not name.startswith("_")}
        event = {
            "id": f"evt_{next(self._serial):08d}",
            "object": "event",
            "api_version": "2026-10-28.endive",
            "type": kind,
            "livemode": False,
            "created": int(time.time()),
            "data": {"object": json.loads(json.dumps(content))},
        }
        self.events.append(event)
        return event

    def deliver(self, event: Json) -> int:
        """Send an event as Stripe does; returns the status of the answer."""
        payload = json.dumps(event)
        return post(self.webhook_url, payload, signature(payload, self.secrets[0]))

    # --- what the API does --------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, params: Json, headers: dict[str, str]) -> tuple[int, Json]:
        """One API call: authentication, idempotency, then the act."""
        with self.lock:
            self.requests.append((method, path, params, headers))
            if headers.get("authorization") != f"Bearer {KEY}":
                return 401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key"}}
            key, content = headers.get("idempotency-key", ""), f"{method} {path} {json.dumps(params, sort_keys=True)}"
            if method == "POST" and key in self._kept:
                known, status, body = self._kept[key]
                if known != content:
                    return 400, {"error": {"type": "idempotency_error", "message": "Other parameters"}}
                return status, body
            try:
                status, body = 200, self._act(method, path, params)
            except StripeFault as fault:
                status, body = fault.status, {"error": fault.error}
            body = {name: value for name, value in body.items() if not name.startswith("_")}
            if method == "POST" and key:
                self._kept[key] = (content, status, json.loads(json.dumps(body)))
            return status, body

    def _act(self, method: str, path: str, params: Json) -> Json:
        acts: dict[str, Callable[[Json], Json]] = {
            "POST /v1/customers": self._make_customer,
            "POST /v1/checkout/sessions": self._make_session,
            "POST /v1/payment_intents": self._make_intent,
            "GET /v1/payment_intents": lambda p: self._listed("payment_intent", "customer", p),
            "POST /v1/refunds": self.make_refund,
            "GET /v1/refunds": lambda p: self._listed("refund", "payment_intent", p),
        }
        if act := acts.get(f"{method} {path}"):
            return act(params)
        parts = path.split("/")
        if parts[-1] == "cancel":
            return self._cancel(self._get(parts[-2]))
        if parts[-1] == "detach":
            card = self._get(parts[-2])
            if card["customer"] is None:
                raise StripeFault(400, type="invalid_request_error", message="not attached")
            card["customer"] = None
            self.emit("payment_method.detached", card)
            return card
        return self._get(parts[-1])

    def _get(self, thing_id: str) -> Json:
        if thing_id not in self.objects:
            raise StripeFault(404, type="invalid_request_error", code="resource_missing", message="No such object")
        return self.objects[thing_id]

    def _listed(self, kind: str, field: str, params: Json) -> Json:
        found = [each for each in reversed(self.of(kind)) if each[field] == params[field]]
        return {"object": "list", "data": found, "has_more": False, "url": "/v1/list"}

    def _make_customer(self, params: Json) -> Json:
        return self._new("cus", "customer", **params)

    def _make_session(self, params: Json) -> Json:
        self._get(params["customer"])
        item = params["line_items"]["0"]
        session = self._new(
            "cs_test",
            "checkout.session",
            mode=params["mode"],
            status="open",
            payment_status="unpaid",
            amount_total=int(item["price_data"]["unit_amount"]) * int(item["quantity"]),
            currency=item["price_data"]["currency"],
            customer=params["customer"],
            metadata=params.get("metadata", {}),
            client_reference_id=params["client_reference_id"],
            payment_intent=None,
            customer_details=None,
            success_url=params["success_url"],
            cancel_url=params["cancel_url"],
            tax_id_collection={"enabled": params["tax_id_collection"]["enabled"] == "true"},
            _payment=params["payment_intent_data"],
        )
        session["url"] = f"{self.url}/pay/{session['id']}"
        return session

    def _make_intent(self, params: Json) -> Json:
        method = self._get(params["payment_method"])
        intent = self._intent(int(params["amount"]), params["currency"], params["customer"])
        intent.update(metadata=params.get("metadata", {}), payment_method=method["id"])
        if self.declines or method["card"]["last4"] == "0341" or method["customer"] != params["customer"]:
            error = {"code": "card_declined", "message": "Your card was declined."}
            intent.update(status="requires_payment_method", payment_method=None, last_payment_error=error)
            self.emit("payment_intent.payment_failed", intent)
            raise StripeFault(402, type="card_error", payment_intent=intent, **error)
        if self.asks_bank:
            intent.update(status="requires_action")
            return intent
        return self.confirm(intent)[0]

    def confirm(self, intent: Json) -> tuple[Json, Json]:
        """The intent, paid, and the event that says so."""
        intent.update(status="succeeded", amount_received=intent["amount"])
        return intent, self.emit("payment_intent.succeeded", intent)

    def _cancel(self, intent: Json) -> Json:
        if intent["status"] in ("succeeded", "canceled"):
            code = "payment_intent_unexpected_state"
            raise StripeFault(400, type="invalid_request_error", code=code, message=f"It is {intent['status']}")
        intent["status"] = "canceled"
        self.emit("payment_intent.canceled", intent)
        return intent

    def make_refund(self, params: Json) -> Json:
        intent = self._get(params["payment_intent"])
        already = sum(each["amount"] for each in self._listed("refund", "payment_intent", params)["data"])
        if int(params["amount"]) > intent["amount_received"] - already:
            raise StripeFault(400, type="invalid_request_error", code="charge_already_refunded", message="Too much")
        refund = self._new(
            "re",
            "refund",
            amount=int(params["amount"]),
            currency=intent["currency"],
            payment_intent=intent["id"],
            status="pending" if self.refunds_wait else "succeeded",
            metadata=params.get("metadata", {}),
        )
        self.emit("refund.created", refund)
        charge = {"id": "ch_1", "object": "charge", "payment_intent": intent["id"], "amount_refunded": refund["amount"]}
        self.emit("charge.refunded", charge)
        return refund

    def _intent(self, amount: int, currency: str, customer: str) -> Json:
        return self._new(
            "pi",
            "payment_intent",
            amount=amount,
            amount_received=0,
            currency=currency,
            customer=customer,
            status="requires_payment_method",
            payment_method=None,
            metadata={},
            last_payment_error=None,
        )

    def _card(self, customer: str, number: str) -> Json:
        return self._new("pm", "payment_method", type="card", customer=customer, card=CARDS[number])

    def _new(self, prefix: str, kind: str, **fields: Any) -> Json:
        made = {"id": f"{prefix}_{next(self._serial):08d}", "object": kind, "livemode": False, **fields}
        self.objects[made["id"]] = made
        return made


def post(url: str, payload: str, header: str) -> int:
    """Deliver a payload with a signature; the status of the answer."""
    request = urllib.request.Request(url, payload.encode(), {"Stripe-Signature": header})  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own server
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


class _Requests(BaseHTTPRequestHandler):
    account: StandInStripe
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def _serve(self, method: str) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if address.path.startswith("/pay/"):
            self._page(method, address.path.removeprefix("/pay/"), dict(parse_qsl(body)))
            return
        params = nested(parse_qsl(body if method == "POST" else address.query, keep_blank_values=True))
        faults = [fault for fault in self.account.faults if address.path.startswith(fault[0])]
        how = faults[0][1] if faults else ""
        if faults:
            self.account.faults.remove(faults[0])
        if how == "before":
            self.close_connection = True
            return
        if how in ("500", "429"):
            self._send(int(how), {"error": {"type": "api_error", "message": "wait"}})
            return
        status, answer = self.account.answer(
            method, address.path, params, {name.lower(): value for name, value in self.headers.items()}
        )
        if how == "after":
            self.close_connection = True
            return
        self._send(status, answer)

    def _page(self, method: str, session_id: str, form: dict[str, str]) -> None:
        """The hosted page: a button to pay and a link to leave."""
        session = self.account.objects[session_id]
        if method == "POST":
            for event in self.account.pay(session_id, tax_id=form.get("tax_id", "")):
                self.account.deliver(event)
            self.send_response(303)
            self.send_header("Location", session["success_url"])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        page = (
            f"<!DOCTYPE html><html lang=en><title>Pay</title><link rel=icon href='data:,'><h1>Pay "
            f"{session['amount_total'] / 100:.2f} {session['currency']}</h1><form method=post>"
            f"<label>Tax id <input name=tax_id></label><button>Pay</button></form>"
            f"<a href='{escape(session['cancel_url'])}'>Back</a></html>"
        )
        self._send(200, page, kind="text/html")

    def _send(self, status: int, content: Json | str, *, kind: str = "application/json") -> None:
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Request-Id", "req_standin")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def running_stripe() -> Iterator[StandInStripe]:
    """The stand-in on a free port."""
    account = StandInStripe()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Requests", (_Requests,), {"account": account}))
    server.daemon_threads = True
    account.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield account
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
