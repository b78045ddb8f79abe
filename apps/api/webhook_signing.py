"""Signatures of webhooks as Standard Webhooks 1.0 describes them (https://www.standardwebhooks.com). Pure."""

import base64
import hmac
from collections.abc import Sequence
from typing import Final

MARK: Final = "whsec_"
VERSION: Final = "v1"


def signed_headers(message_id: str, body: str, *, sent_at: int, secrets: Sequence[str]) -> dict[str, str]:
    """The three headers of a message sent at `sent_at` (Unix seconds): one signature for each live secret."""
    signatures = " ".join(f"{VERSION},{signature(message_id, body, sent_at, secret)}" for secret in secrets)
    return {"webhook-id": message_id, "webhook-timestamp": str(sent_at), "webhook-signature": signatures}


def signature(message_id: str, body: str, sent_at: int, secret: str) -> str:
    """Base64 of HMAC-SHA256 over `id.timestamp.body` under the bytes that the secret stands for."""
    key = base64.b64decode(secret.removeprefix(MARK), validate=True)
    signed = f"{message_id}.{sent_at}.{body}".encode()
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
