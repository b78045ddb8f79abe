"""A listener that must never be connected to, and a resolver that knows what it is told."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Entries = list[tuple[Any, ...]]


class Canary:
    """Counts connections to one port of this machine, by IPv4 and IPv6, whichever loopback address they are made to."""

    def __init__(self) -> None:
        self.connections = 0
        self._sockets = [_listening(socket.AF_INET, "0.0.0.0", 0)]
        self.port = int(self._sockets[0].getsockname()[1])
        if socket.has_ipv6:
            self._sockets.append(_listening(socket.AF_INET6, "::", self.port))
        for each in self._sockets:
            threading.Thread(target=self._accept, args=(each,), daemon=True).start()

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            connection.close()


def _listening(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    listener.listen(64)
    return listener


@contextmanager
def watching() -> Iterator[Canary]:
    canary = Canary()
    try:
        yield canary
    finally:
        canary.close()


class Resolver:
    """In place of the system's: names that it was told lead there, each answer once and the last for ever; addresses,
    in whatever spelling, are what the system makes of them; other names have none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[list[str]]]) -> None:
        self.asked: Counter[str] = Counter()
        self._names = names
        self._system = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *rest: Any, **named: Any) -> Entries:
        name = (host.decode() if isinstance(host, bytes) else str(host)).lower().rstrip(".")
        self.asked[name] += 1
        if name in self._names:
            answers = self._names[name]
            told = answers.pop(0) if len(answers) > 1 else answers[0]
            return [entry for address in told for entry in self._entries(address, port)]
        return self._entries(str(host), port)

    def _entries(self, host: str, port: Any) -> Entries:
        known = host == "localhost" or host[-1:].isdigit() or ":" in host or host.lower().startswith("0x")
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return list(self._system(host, port, type=socket.SOCK_STREAM))
