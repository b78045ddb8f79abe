"""nginx as a plain proxy in front of the benchmark's upstream: what the gateway is compared with."""

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import accepts, running, wait_until
from bench.cpu import descendants
from crun.supervisor.program import Program, StopStep

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    keepalive_requests 1000000;
    upstream bench {{
        server 127.0.0.1:{upstream_port};
        keepalive 128;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://127.0.0.1:{upstream_port};
        }}
    }}
    server {{
        listen 127.0.0.1:{tuned_port} backlog=1024;
        location / {{
            proxy_pass http://bench;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True)
class NginxPorts:
    """Where nginx listens: `plain` is `proxy_pass` as it comes; `tuned` keeps connections to the upstream and does
    not buffer."""

    plain: int
    tuned: int


@dataclass(frozen=True)
class Nginx:
    """A running nginx with one worker."""

    version: str
    worker_pid: int


def find_nginx() -> str | None:
    """Path of the program; it is often outside of an ordinary user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/sbin:/opt/homebrew/bin")


@contextmanager
def nginx(program_path: str, folder: Path, *, ports: NginxPorts, upstream_port: int) -> Iterator[Nginx]:
    """nginx for the length of the block."""
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(folder=folder, port=ports.plain, tuned_port=ports.tuned, upstream_port=upstream_port)
    )
    error_log = folder / "nginx-error.log"
    program = Program(
        name="nginx",
        argv=(program_path, "-p", str(folder), "-e", str(error_log), "-c", str(configuration)),
        log=folder / "nginx.log",
        stop_steps=(StopStep(signal.SIGTERM, 5.0),),
    )
    with running(program) as process:
        wait_until(
            lambda: accepts(ports.plain) and bool(descendants(process.pid)), program, process=process, limit_s=10.0
        )
        yield Nginx(_version(program_path), descendants(process.pid)[0])


def _version(program_path: str) -> str:
    told = subprocess.run([program_path, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/([\d.]+)", told)
    return found.group(1) if found else told.strip()
