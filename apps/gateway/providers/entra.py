"""Tokens of Microsoft Entra for Azure OpenAI: the client credentials flow of OAuth 2.0.

Source: Microsoft's page on the OAuth 2.0 client credentials flow, and its table of national clouds."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from apps.gateway.dialects.vendor_json import read_json
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.connection import UpstreamBroken, UpstreamResponse
from apps.gateway.providers.short_lived import Granted, NoCredential, Source

Send = Callable[[UpstreamRequest], Awaitable[UpstreamResponse]]
MAX_ANSWER_BYTES: Final = 64 << 10
MAX_LIFETIME_S: Final = 86_400
_CREDENTIAL: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,127}):([A-Za-z0-9-]{1,64}):(.+)")
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
_CODE: Final = re.compile(r"[a-z_]{1,40}")


class Cloud(NamedTuple):
    """Where tokens are got, and what they are for."""

    authority: str
    scope: str


CLOUDS: Final = {
    "public": Cloud("https://login.microsoftonline.com", "https://cognitiveservices.azure.com/.default"),
    "us-government": Cloud("https://login.microsoftonline.us", "https://cognitiveservices.azure.us/.default"),
    "china": Cloud("https://login.partner.microsoftonline.cn", "https://cognitiveservices.azure.cn/.default"),
}


async def entra_token(send: Send, source: Source, *, authority: str = "") -> Granted:
    """A token for the client of `source.secret` (TENANT:CLIENT_ID:CLIENT_SECRET). `authority` stands in place of the
    cloud's own. Raises NoCredential."""
    found = _CREDENTIAL.fullmatch(source.secret)
    if found is None:
        raise NoCredential("the credential must be TENANT:CLIENT_ID:CLIENT_SECRET", is_refused=True)
    tenant, client_id, client_secret = found.groups()
    cloud = CLOUDS[source.place]
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": client_secret,
        "scope": cloud.scope,
    }
    request = UpstreamRequest(
        url=f"{authority or cloud.authority}/{tenant}/oauth2/v2.0/token",
        headers={
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
            "accept-encoding": "identity",
        },
        body=urlencode(form).encode(),
    )
    try:
        response = await send(request)
        try:
            body = await response.read(MAX_ANSWER_BYTES)
        finally:
            response.close()
    except UpstreamBroken as error:
        raise NoCredential("Entra's token endpoint broke off") from error
    return _granted(response.status, body)


def _granted(status: int, body: bytes) -> Granted:
    try:
        answer: Any = read_json(body)
    except ValueError:
        answer = None
    told = answer if isinstance(answer, dict) else {}
    if status != 200:
        code = told.get("error")
        code = code if isinstance(code, str) and _CODE.fullmatch(code) else "no code"
        is_refused = status in (400, 401, 403)
        raise NoCredential(f"Entra's token endpoint answered {status} ({code})", is_refused=is_refused)
    token, lifetime = told.get("access_token"), told.get("expires_in")
    lifetime = int(lifetime) if isinstance(lifetime, str) and lifetime.isdecimal() else lifetime
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not isinstance(lifetime, int) or lifetime <= 0:
        raise NoCredential("Entra's token endpoint answered without a token")
    return Granted(token, min(lifetime, MAX_LIFETIME_S))
