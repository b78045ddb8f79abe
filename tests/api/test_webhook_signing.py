"""Signatures, checked with the official package of Standard Webhooks."""

import base64
import os
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from apps.api.webhook_signing import signed_headers
from apps.billing.alerts.endpoints import new_secret

BODY = '{"type":"credit.low","data":{"text":"Größe – 5 €"}}'
FRESH = timedelta()


def headers(*secrets: str, body: str = BODY, age: timedelta = FRESH) -> dict[str, str]:
    sent_at = int((datetime.now(UTC) - age).timestamp())
    return signed_headers("msg_1", body, sent_at=sent_at, secrets=secrets)


def test_the_official_package_accepts_them() -> None:
    secret = new_secret()
    assert Webhook(secret).verify(BODY, headers(secret))["type"] == "credit.low"


def test_both_secrets_verify_while_they_change() -> None:
    old, new = new_secret(), new_secret()
    sent = headers(new, old)
    assert len(sent["webhook-signature"].split(" ")) == 2
    for secret in (old, new):
        Webhook(secret).verify(BODY, sent)


@pytest.mark.parametrize("change", ["secret", "body", "id", "timestamp", "age"])
def test_the_official_package_refuses_what_was_changed(change: str) -> None:
    secret = new_secret()
    age = timedelta(minutes=6) if change == "age" else FRESH
    sent, body = headers(secret, age=age), BODY
    if change == "id":
        sent["webhook-id"] = "msg_2"
    elif change == "timestamp":
        sent["webhook-timestamp"] = str(int(sent["webhook-timestamp"]) + 1)
    elif change == "body":
        body = BODY.replace("5", "6")
    verifier = Webhook(new_secret() if change == "secret" else secret)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body, sent)


def test_secrets_of_any_length_work() -> None:
    for length in (24, 32, 64):
        secret = "whsec_" + base64.b64encode(os.urandom(length)).decode()
        Webhook(secret).verify(BODY, headers(secret))


def test_the_published_example_is_reproduced() -> None:
    """The vector of the specification's reference implementation."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    signed = signed_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", '{"test": 2432232314}', sent_at=1614265330, secrets=[secret]
    )
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
