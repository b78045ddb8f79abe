"""The HTTP client of the data path: connections to all upstreams of a worker, used again while they are alive."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from apps.catalog.contracts import Target
from apps.core.addresses import ANY_PRIVATE, AddressRefused, Network, Reach, check_addresses, reach_of_host
from apps.gateway.dialects.large_content import Content, LargeContent
from apps.gateway.providers.aws_roles import role_credential
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.connection import Connection, UpstreamBroken, UpstreamResponse
from apps.gateway.providers.entra import entra_token
from apps.gateway.providers.short_lived import Granted, NoCredential, ShortLivedCredentials, Source
from apps.gateway.providers.vendor_errors import BESIDE

KEEP_ALIVE_S: Final = 15.0
"""Shorter than most servers keep theirs, so that a request rarely meets a connection that is just closing."""
MAX_ERROR_BYTES: Final = 64 << 10
_PATH_CHARACTERS: Final = "/:@!$&'()*+,;=-._~%"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
log = logging.getLogger(__name__)


class UpstreamUnreachable(Exception):
    """No connection, or none that took the whole request: nothing can have been charged."""


class CredentialRefused(UpstreamUnreachable):
    """What the request's short-lived credential is got with is not taken."""


class _Origin(NamedTuple):
    """Where connections lead."""

    host: str
    port: int
    is_tls: bool


class Transport:
    """One pool of connections for all upstreams of a worker."""

    def __init__(
        self, *, connect_timeout_s: float, private: Sequence[Network] = ANY_PRIVATE, entra_authority: str = ""
    ) -> None:
        """`private` are the networks that upstreams may be in beside the public internet. `entra_authority` stands in
        place of Microsoft's."""
        self._private = private
        self._loop = asyncio.get_running_loop()
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[_Origin, list[Connection]] = {}
        self._all: dict[Connection, _Origin] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._tls = _tls_context()
        self._authority = entra_authority
        self._short_lived = ShortLivedCredentials({"entra": self._entra_token, "aws": role_credential})

    @property
    def open_connections(self) -> int:
        """Connections that are serving a request right now."""
        return len(self._all) - sum(map(len, self._idle.values()))

    async def post(self, request: UpstreamRequest, *, on_send: Callable[[], None]) -> UpstreamResponse:
        """Send a request and wait for the headers of its answer, which the caller must `close` whatever happens.

        `on_send` is called when a connection takes the request: from then on it may be charged. Redirects are not
        followed, proxies of the environment are not used. Raises UpstreamUnreachable or UpstreamBroken."""
        if request.sign is not None or isinstance(request.body, LargeContent):
            request = await self._made_ready(request)
        try:
            origin, line = _target_of(request.url)
            head = _head_of(line, request)
        except ValueError as error:  # nothing of it goes out; the message could tell a credential
            raise UpstreamUnreachable(type(error).__name__) from None
        connection = self._free_connection(origin) or await self._connect(origin)
        on_send()
        return await connection.ask(head, request.body)

    def refused(self, request: UpstreamRequest) -> None:
        """The upstream did not take the credential of this request."""
        if isinstance(request.credential, Source):
            self._short_lived.refused(request.credential)

    def secrets_of(self, target: Target, request: UpstreamRequest) -> Target:
        """The route with all that its upstream was shown as a credential, for who keeps that out of what comes back."""
        if isinstance(request.credential, Source) and (shown := self._short_lived.shown(request.credential)):
            return msgspec.structs.replace(target, api_key=f"{target.api_key}{BESIDE}{shown}")
        return target

    async def close(self) -> None:
        """Close all connections. Waits one turn of the loop so that transports are really gone."""
        self._short_lived.close()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._all):
            connection.abort("this process stops")
        await asyncio.sleep(0)

    async def _made_ready(self, request: UpstreamRequest) -> UpstreamRequest:
        """The request with what can only be known with some patience. Raises UpstreamUnreachable."""
        if request.sign is None:
            for _ in request.body.weigh() if isinstance(request.body, LargeContent) else ():
                await asyncio.sleep(0)
            return request
        credential = request.credential
        if isinstance(credential, Source):
            try:
                credential = await self._short_lived.get(credential)
            except NoCredential as error:
                raise (CredentialRefused if error.is_refused else UpstreamUnreachable)("NoCredential") from None
        headers = request.headers | request.sign(await _digest_of(request.body), credential)
        return msgspec.structs.replace(request, headers=headers)

    async def _entra_token(self, source: Source) -> Granted:
        """Over these connections, so that what holds for the addresses of upstreams holds for this one."""
        try:
            return await entra_token(partial(self.post, on_send=_nobody_is_told), source, authority=self._authority)
        except UpstreamUnreachable as error:
            raise NoCredential("Entra's token endpoint cannot be reached") from error

    def _free_connection(self, origin: _Origin) -> Connection | None:
        """The one that was used last: those that are not needed grow old."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            is_old = self._loop.time() - connection.idle_since >= KEEP_ALIVE_S
            if not (connection.is_lost or is_old or connection.has_unread):
                return connection
            connection.abort("not used again")
        return None

    async def _connect(self, origin: _Origin) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connect_to_any(origin, await self._checked_addresses(origin))
        except (OSError, UnicodeError, AddressRefused) as error:  # TimeoutError and what TLS refuses are OSErrors
            raise UpstreamUnreachable(type(error).__name__) from error
        self._all[connection] = origin
        if connection.is_lost:  # it came and went while this task waited for its turn
            self._forget(connection)
            raise UpstreamUnreachable("ConnectionResetError")
        return connection

    async def _checked_addresses(self, origin: _Origin) -> list[str]:
        """What the host leads to, looked up once: nothing is resolved between this and the connection.

        Raises AddressRefused for a place that no provider may be at, OSError for a name without address."""
        found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        try:
            addresses = check_addresses([str(each[4][0]) for each in found], self._private)
        except AddressRefused:
            log.error("a provider's address leads to a place where no request may go; its connection test tells more")
            raise
        return list(dict.fromkeys(map(str, addresses)))

    async def _connect_to_any(self, origin: _Origin, addresses: list[str]) -> Connection:
        """A connection to the first address that takes one. Raises OSError: that of the last one."""
        failure = OSError("the name has no address")
        for address in addresses:
            try:
                _, connection = await self._loop.create_connection(
                    lambda: Connection(on_free=self._take_back, on_lost=self._forget),
                    address,
                    origin.port,
                    ssl=self._tls if origin.is_tls else None,
                    server_hostname=origin.host if origin.is_tls else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure

    def _take_back(self, connection: Connection) -> None:
        connection.idle_since = self._loop.time()
        self._idle.setdefault(self._all[connection], []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._close_old)

    def _forget(self, connection: Connection) -> None:
        origin = self._all.pop(connection, None)
        if origin is not None and connection in (idle := self._idle.get(origin, [])):
            idle.remove(connection)

    def _close_old(self) -> None:
        """The oldest stand first."""
        self._sweep = None
        before = self._loop.time() - KEEP_ALIVE_S
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since <= before:
                idle.pop(0).abort("idle for too long")
            if not idle:
                del self._idle[origin]
        if self._idle:
            self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._close_old)


@lru_cache(maxsize=4096)
def _target_of(url: str) -> tuple[_Origin, bytes]:
    """Where a URL leads, and the request line and host header for it. Raises ValueError for one that leads nowhere."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or reach_of_host(parts.hostname) is Reach.NEVER:
        raise ValueError("not an address of an upstream")
    host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    shown = f"[{host}]" if ":" in host else host
    if port != _DEFAULT_PORTS[parts.scheme]:
        shown = f"{shown}:{port}"
    path = quote(parts.path or "/", safe=_PATH_CHARACTERS)
    query = f"?{quote(parts.query, safe=_PATH_CHARACTERS + '?')}" if parts.query else ""
    line = f"POST {path}{query} HTTP/1.1\r\nhost: {shown}\r\n"
    return _Origin(host, port, parts.scheme == "https"), line.encode()


async def _digest_of(body: Content) -> str:
    """The SHA-256 of a body, in hex. Of a large one the length is known then."""
    digest = sha256()
    if isinstance(body, LargeContent):
        for _ in body.weigh(digest.update):
            await asyncio.sleep(0)
    else:
        digest.update(body)
    return digest.hexdigest()


def _nobody_is_told() -> None:
    """A token is no request that is charged."""


def _head_of(line: bytes, request: UpstreamRequest) -> bytes:
    """Everything before the body. Raises ValueError for a header that would end its line."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in request.headers.items()])
    breaks = fields.count("\r"), fields.count("\n"), fields.count("\0")
    if breaks != (len(request.headers), len(request.headers), 0):
        raise ValueError("a header with a line break")
    return b"%bcontent-length: %d\r\n%b\r\n" % (line, len(request.body), fields.encode("latin-1"))


@cache
def _tls_context() -> ssl.SSLContext:
    """Certificates and host names are checked, by the system's authorities; TLS 1.2 at least. Reading those is slow."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


__all__ = [
    "MAX_ERROR_BYTES",
    "CredentialRefused",
    "Transport",
    "UpstreamBroken",
    "UpstreamResponse",
    "UpstreamUnreachable",
]
