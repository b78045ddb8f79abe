"""An httpx transport that looks a provider's name up once, checks where it leads, and connects to that very address."""

import socket
from collections.abc import Sequence

import httpx

from apps.core.addresses import AddressRefused, Network, check_addresses, host_problem


class CheckedTransport(httpx.BaseTransport):
    """Raises AddressRefused for places where no provider may be. `private` are the networks that are allowed beside the
    public internet. Proxies of the environment are not asked."""

    def __init__(self, private: Sequence[Network]) -> None:
        self._private = private
        self._inner: httpx.HTTPTransport | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.raw_host.decode("ascii").removeprefix("[").removesuffix("]")
        if problem := host_problem(host, self._private):
            raise AddressRefused(problem)
        try:
            found = socket.getaddrinfo(host, request.url.port or request.url.scheme, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError("The name has no address.", request=request) from error
        addresses = check_addresses([str(each[4][0]) for each in found], self._private)
        self._inner = self._inner or httpx.HTTPTransport(trust_env=False)
        failure: httpx.ConnectError | None = None
        for address in addresses:
            try:
                return self._inner.handle_request(_pinned(request, str(address), name=host))
            except httpx.ConnectError as error:
                failure = failure or error
        raise failure or httpx.ConnectError("The name has no address.", request=request)

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()


def _pinned(request: httpx.Request, address: str, *, name: str) -> httpx.Request:
    """The request, sent to this address; the Host header and TLS keep the name."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # with the Host of the URL as it was written
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": name},
    )
