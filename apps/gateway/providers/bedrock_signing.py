"""Signature Version 4 for Bedrock, by botocore's signer alone: no session, no look-up of credentials, no files."""

import logging
from functools import lru_cache
from typing import Final, NamedTuple

from botocore.auth import SigV4Auth  # type: ignore[import-untyped]  # botocore has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]  # botocore has no types

SERVICE: Final = "bedrock"
logging.getLogger("botocore").setLevel(logging.WARNING)  # its signer would log session tokens and signatures at DEBUG


class Credentials(NamedTuple):
    """As the signer reads them."""

    access_key: str
    secret_key: str
    token: str | None


class _Signer(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Does not read the body itself: of a large one the digest is made in steps."""

    def payload(self, request: AWSRequest) -> str:
        """The SHA-256 of the body."""
        return str(request.context["body_sha256"])


def signed_headers(url: str, body_sha256: str, credential: str, *, region: str) -> dict[str, str]:
    """The headers that a POST of JSON with this digest (in hex) must have. `credential` is
    ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN].

    Date and signature are made anew for each request; they are valid for five minutes."""
    request = AWSRequest("POST", url, headers={"content-type": "application/json"})
    request.context["body_sha256"] = body_sha256
    _signer(credential, region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@lru_cache(maxsize=256)
def _signer(credential: str, region: str) -> _Signer:
    access_key, _, rest = credential.partition(":")
    secret_key, _, token = rest.partition(":")
    return _Signer(Credentials(access_key, secret_key, token or None), SERVICE, region)
