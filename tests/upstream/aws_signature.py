"""Signature Version 4, computed from its specification and not by the library that signed.

Source: "Create a signed AWS API request" in the AWS Identity and Access Management User Guide."""

import hashlib
import hmac
from urllib.parse import quote

from tests.upstream.scripted import Received

ACCESS_KEY, SECRET_KEY, TOKEN = "AKIACANARY0123456789", "canary/secret+key/0123456789", "session//token==canary"


def verify(request: Received, *, region: str, secret_key: str = SECRET_KEY) -> None:
    """Fails for a request whose signature is not the right one for its path, headers and body."""
    authorization = request.headers["authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 ")
    fields = dict(part.strip().split("=", 1) for part in authorization.removeprefix("AWS4-HMAC-SHA256 ").split(","))
    access_key, *scope = fields["Credential"].split("/")
    stamp = request.headers["x-amz-date"]
    assert (access_key, scope) == (ACCESS_KEY, [stamp[:8], region, "bedrock", "aws4_request"])
    names = fields["SignedHeaders"].split(";")
    assert {"host", "x-amz-date", "content-type"} <= set(names)
    canonical = "\n".join((
        request.method,
        quote(request.target, safe="/~-_."),
        "",
        *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
        "",
        fields["SignedHeaders"],
        hashlib.sha256(request.body).hexdigest(),
    ))  # fmt: skip
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, "/".join(scope), hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    assert hmac.digest(key, text.encode(), "sha256").hex() == fields["Signature"]
