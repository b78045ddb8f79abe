"""The port that visitors come to, held by the supervisor: connections wait in its queue while a worker restarts."""

import errno
import socket

BACKLOG = 2048


class PortTaken(Exception):
    """The address cannot be listened on. The message says how to mend it."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one. Raises PortTaken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise PortTaken(f"HOST is {host}, which is no address of this machine ({error.strerror}).") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PortTaken(_explain(host, port, error)) from error
    return listener


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` if it is free on `host`, else any that is."""
    for port in (wanted, 0):
        try:
            with listen(host, port) as listener:
                return port_of(listener)
        except PortTaken:
            continue
    raise PortTaken(f"No port is free on {host}.")


def port_of(listener: socket.socket) -> int:
    """The port that a listening socket got."""
    return int(listener.getsockname()[1])


def _explain(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use. Stop what uses it, or choose another: PORT={port + 1} make run"
    if error.errno == errno.EACCES:
        return f"Port {port} needs privileges. Choose one above 1023: PORT=8000 make run"
    return f"Cannot listen on {host} port {port}: {error.strerror}"
