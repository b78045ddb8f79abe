"""An httpx transport that connects to the very address that was checked, and speaks TLS with the name that was asked.

Between the check and the connection nothing is resolved again: the URL's host is replaced by the address, the name
stays in the Host header and in the TLS handshake, where the certificate is checked against it."""

import ssl

import httpx

from apps.api.webhook_addresses import Resolve, checked_address


class CheckedTransport(httpx.AsyncBaseTransport):
    """Raises AddressRefused for places where webhooks may not go, and httpx.ConnectError for names without address."""

    def __init__(self, *, resolve: Resolve, allow_private: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._allow_private = allow_private
        self._resolve = resolve
        # Nothing is kept alive: each message has an address of its own. Proxies of the environment are not asked.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(
            verify=tls or httpx.create_ssl_context(trust_env=False), trust_env=False, limits=limits, retries=0
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            address = await checked_address(request.url, self._resolve, allow_private=self._allow_private)
        except (OSError, TimeoutError) as error:
            raise httpx.ConnectError("the host name cannot be resolved", request=request) from error
        name = request.url.raw_host.decode("ascii")
        pinned = httpx.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,  # with the Host of the URL as it was written
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": name},
        )
        return await self._inner.handle_async_request(pinned)

    async def aclose(self) -> None:
        await self._inner.aclose()
