"""One ASGI worker process: on an inherited listening socket, `python -m crun.serve --fd N --worker I`, or on a port.

Why not uvicorn's own command: its streams end as crun/draining.py says, and its sockets give dead clients up."""

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import resource
import socket

import uvicorn

from crun.draining import DrainingServer
from crun.http_protocol import GatewayProtocol

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")

DATA_PATH_ALONE = "crun.asgi:gateway"
KEEP_ALIVE_S = 30
BACKLOG = 2048
M_MMAP_THRESHOLD = -3
"""As <malloc.h> has it."""
LARGE_BLOCK_BYTES = 4 << 20
UNSENT_BYTES = 64 << 10
"""Of an answer in the kernel whose client does not read. By itself it takes 4 MB, and what it has counts as sent."""
GC_THRESHOLDS = (20_000, 20, 50)
"""Requests leave few cycles behind; looking for them every 700 objects costs more than it frees."""


def main() -> None:
    """Serve until SIGTERM; then finish what is under way, within the drain limits."""
    parser = argparse.ArgumentParser(prog="crun.serve", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="descriptor of the listening socket")
    where.add_argument("--port", type=int, help="port to listen on, where nobody hands a socket down")
    parser.add_argument("--host", default="127.0.0.1", help="address of that port")
    parser.add_argument("--worker", type=int, default=0, help="number of this worker, for its name in logs")
    parser.add_argument("--app", default="crun.asgi:application", help="ASGI application to serve")
    options = parser.parse_args()
    config = uvicorn.Config(
        options.app,
        host=options.host,
        port=options.port or 0,
        loop="uvloop",
        http=GatewayProtocol,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # for pages alone: crun/asgi.py
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    if options.app != DATA_PATH_ALONE:
        importlib.import_module("crun.urls")  # now, and not while the first page stops everybody's streams
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    _give_large_blocks_back()
    _allow_many_connections()
    listening = config.bind_socket() if options.fd is None else socket.socket(fileno=options.fd)
    _give_up_on_dead_clients(listening)
    keep_little_for_slow_clients(listening)
    DrainingServer(config).run(sockets=[listening])


def _give_large_blocks_back() -> None:
    """Have the C library return the memory of a large body as soon as it is free. By itself it learns from the first
    one to keep up to 64 MB for the next."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def _allow_many_connections() -> None:
    """Use as many descriptors as the machine allows: each request takes two, and the usual 1 024 are few."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):  # a system that names a limit which it does not grant
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _give_up_on_dead_clients(listening: socket.socket) -> None:
    """Let the kernel end connections whose other side is gone or never reads; accepted ones inherit it.

    Closing waits for unsent bytes, so without a bound such a client would hold a descriptor for as long as it likes."""
    write_limit_ms = int(float(os.environ.get("CRUN_CLIENT_WRITE_TIMEOUT_S", "30")) * 1000)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, write_limit_ms)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)


def keep_little_for_slow_clients(listening: socket.socket) -> None:
    """Have the kernel take no more than UNSENT_BYTES beyond what a client has room for; accepted ones inherit it."""
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)


if __name__ == "__main__":
    main()
