"""Whom `X-Forwarded-For` and `X-Forwarded-Proto` are believed, and for what."""

import asyncio
from typing import Any

import pytest

from crun import asgi

PROXY, STRANGER, CLIENT = "127.0.0.1", "203.0.113.9", "198.51.100.7"


@pytest.mark.parametrize(("peer", "path", "client", "scheme"), [
    (PROXY, "/accounts/login/", CLIENT, "https"),
    (STRANGER, "/accounts/login/", STRANGER, "http"),
    (PROXY, "/api/v1/models", PROXY, "http"),
])  # fmt: skip
def test_pages_believe_a_trusted_proxy_and_the_data_path_looks_at_no_address(
    monkeypatch: pytest.MonkeyPatch, peer: str, path: str, client: str, scheme: str
) -> None:
    seen: list[dict[str, Any]] = []

    async def keep(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope)

    monkeypatch.setattr(asgi.web, "app", keep)
    monkeypatch.setattr(asgi, "gateway", keep)
    headers = [(b"x-forwarded-for", CLIENT.encode()), (b"x-forwarded-proto", b"https")]
    scope = {"type": "http", "path": path, "scheme": "http", "client": (peer, 1), "headers": headers}
    asyncio.run(asgi.application(scope, None, None))
    assert [(each["client"][0], each["scheme"]) for each in seen] == [(client, scheme)]
