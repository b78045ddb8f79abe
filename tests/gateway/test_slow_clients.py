"""What the kernel keeps for a client that does not read: it counts as sent, and is billed."""

import socket

import pytest

from crun.serve import UNSENT_BYTES, keep_little_for_slow_clients


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="this system has no such bound")
def test_the_kernel_takes_little_for_a_client_that_does_not_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as client:
        keep_little_for_slow_clients(listening)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(listening.getsockname())
        accepted, _ = listening.accept()
        with accepted:
            accepted.setblocking(False)
            taken = 0
            with pytest.raises(BlockingIOError):
                while taken < 64 * UNSENT_BYTES:
                    taken += accepted.send(b"x" * 1_000)
    assert 0 < taken < 3 * UNSENT_BYTES
