"""The listening socket that the supervisor holds."""

import socket

import pytest

from crun.supervisor.listening import PortTaken, free_port, listen, port_of


def test_a_busy_port_is_named_with_a_way_out() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = port_of(taken)
        with pytest.raises(PortTaken, match=rf"Port {port} .* PORT={port + 1} make run"):
            listen("127.0.0.1", port)


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(PortTaken, match=r"HOST is no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)


def test_a_free_port_is_kept_and_a_taken_one_replaced() -> None:
    with listen("127.0.0.1", 0) as taken:
        other = free_port(port_of(taken))
        assert other != port_of(taken)
    assert free_port(other) == other


def test_connections_wait_in_the_queue_while_nobody_accepts() -> None:
    with (
        listen("127.0.0.1", 0) as listener,
        socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5) as visitor,
    ):
        visitor.sendall(b"early")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(5) == b"early"
