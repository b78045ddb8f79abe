"""The services of docker-compose.yml as processes of this machine: their own commands, without an engine."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from crun.embedded import embedded_servers
from crun.home import Home
from crun.supervisor.program import log_tail
from tests.deploy.compose import NGINX_CONF, ROOT, as_run_here, filled_in, services

SECRETS = dict.fromkeys(
    (
        "POSTGRES_PASSWORD",
        "VALKEY_PASSWORD",
        "CRUN_GATEWAY_DB_PASSWORD",
        "CRUN_WORKER_DB_PASSWORD",
        "CRUN_WEB_DB_PASSWORD",
    ),
    "unused",
)
OWN_STORES = ("DATABASE_URL", "REDIS_URL", "CRUN_JOURNAL_DIR")  # here: the embedded ones of a home of its own
ROLE_URL = "CRUN_DATABASE_URL_"  # the embedded server knows the roles by CRUN_DATABASE_ROLE alone
DOMAIN = "crun.test"


def runnable_conf(folder: Path, *, port: int, gateway_port: int, web_port: int) -> str:
    """deploy/nginx/crun.conf with addresses of this machine, and nothing written outside `folder`."""
    changes = {
        r"server gateway:8000 resolve;": f"server 127.0.0.1:{gateway_port};",
        r"server web:8000 resolve;": f"server 127.0.0.1:{web_port};",
        r"listen 80 default_server;": f"listen 127.0.0.1:{port} default_server;",
        r"\n\s*listen \[::\]:80 default_server;": "",
        r"/dev/stdout": f"{folder}/access.log",
        r"/dev/stderr": f"{folder}/error.log",
        r"\bpid \S+;": f"pid {folder}/nginx.pid;",
        r"worker_processes auto;": "worker_processes 1;",
        r"worker_rlimit_nofile \d+;": "",
        r"worker_connections \d+;": "worker_connections 256;",
        r"http \{": f"http {{\n    client_body_temp_path {folder}/body;\n    proxy_temp_path {folder}/proxy;\n"
        f"    fastcgi_temp_path {folder}/fcgi;\n    uwsgi_temp_path {folder}/uwsgi;\n    scgi_temp_path {folder}/scgi;",
    }
    text = NGINX_CONF.read_text(encoding="utf-8")
    for pattern, replacement in changes.items():
        text, count = re.subn(pattern, replacement, text, count=1)
        assert count == 1, f"crun.conf has no {pattern}"
    return text


@dataclass
class Stack:
    """The running services; `home` stands for the volumes."""

    home: Home
    ports: dict[str, int]
    environment: dict[str, str]
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where nginx listens."""
        return f"http://127.0.0.1:{self.ports['nginx']}"

    def command(self, name: str) -> list[str]:
        """The service's command, on a port and in a place of this machine."""
        command = as_run_here(services()[name]["command"])
        moved = [re.sub(r"--port=\d+", f"--port={self.ports.get(name, 0)}", part) for part in command]
        moved = [part.replace("--host=0.0.0.0", "--host=127.0.0.1") for part in moved]
        return [re.sub(r"=\S+/beat-schedule", f"={self.home.path}/beat-schedule", part) for part in moved]

    def start(self, name: str) -> None:
        self.home.logs.mkdir(parents=True, exist_ok=True)
        with (self.home.logs / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                self.command(name),
                cwd=ROOT,
                env=self.environment | self.role(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def role(self, name: str) -> dict[str, str]:
        """What tells a service's process as whom it logs in to PostgreSQL."""
        environment = services()[name]["environment"]
        return {variable: environment[variable] for variable in ("CRUN_DATABASE_ROLE",) if variable in environment}

    def start_nginx(self, program: str) -> None:
        folder = self.home.path / "nginx"
        folder.mkdir(mode=0o755)
        conf = folder / "nginx.conf"
        ports = {f"{name}_port": self.ports[name] for name in ("gateway", "web")}
        conf.write_text(runnable_conf(folder, port=self.ports["nginx"], **ports))
        self.processes["nginx"] = subprocess.Popen([program, "-g", "daemon off;", "-c", str(conf)])

    def stop(self, name: str, *, limit_s: float = 30.0) -> int:
        """SIGTERM, as `docker stop` sends it; the exit status."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(limit_s)
        finally:
            process.kill()
            process.wait()

    def run_once(self, name: str) -> str:
        """Run a one-shot service to its end; its standard output."""
        return self.run_command(self.command(name))

    def run_command(self, command: list[str]) -> str:
        """Run any command in the services' environment; its standard output."""
        self.assert_alive()
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def assert_alive(self) -> None:
        """Every service that was started still runs."""
        for name, process in self.processes.items():
            assert process.poll() is None, f"{name} ended: {log_tail(self.home.logs / f'{name}.log')}"

    def is_healthy(self, name: str) -> bool:
        """The service's own health check."""
        self.assert_alive()
        kind, *test = services()[name]["healthcheck"]["test"]
        if kind == "CMD-SHELL":
            script = filled_in(test[0], SECRETS).replace("find /tmp", f"find {self.home.path}")
            test = ["/bin/sh", "-c", script]
        else:
            test = as_run_here(test)
        moved = [re.sub(r"(127\.0\.0\.1'?[:,] ?)\d+", rf"\g<1>{self.ports.get(name, 0)}", part) for part in test]
        environment = {**self.environment, "HOSTNAME": socket.gethostname()}
        checked = subprocess.run(moved, cwd=ROOT, env=environment, capture_output=True, timeout=30, check=False)
        return checked.returncode == 0


@contextmanager
def running_stack(nginx: str) -> Iterator[Stack]:
    """All services, started in the order of their dependencies; everything is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="crun-stack-", dir="/tmp"))
    folder.chmod(0o755)
    home = Home(folder / "home")
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        cleanup.enter_context(embedded_servers(home, durable=False))
        ports = {name: _free_port() for name in ("nginx", "gateway", "web", "sandbox")}
        stack = Stack(home, ports, _environment(home, ports))
        cleanup.callback(_stop_all, stack)
        stack.prepared = orjson.loads(stack.run_once("prepare").splitlines()[-1])
        for name in ("sandbox", "gateway", "web", "worker", "beat"):
            stack.start(name)
        stack.start_nginx(nginx)
        for name in ("gateway", "web", "sandbox"):
            eventually(lambda name=name: stack.is_healthy(name))  # type: ignore[misc]  # bound in the loop
        yield stack


def eventually(condition: Callable[[], object], *, limit_s: float = 45.0) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen within {limit_s:g} s"
        time.sleep(0.1)


def ask(
    url: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One request without redirects being hidden: status, headers by lower-case name, body."""
    request = urllib.request.Request(url, data=body, headers=headers or {})  # noqa: S310 - an address of this test
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            return answer.status, _lowered(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _lowered(error.headers.items()), error.read()


def _lowered(headers: list[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


def _environment(home: Home, ports: dict[str, int]) -> dict[str, str]:
    """What compose would set, but for the stores; secrets are those of this test run."""
    given = services()["gateway"]["environment"]
    values = {**SECRETS, "CRUN_DOMAIN": DOMAIN, "CRUN_PUBLIC_URL": f"http://127.0.0.1:{ports['nginx']}"}
    filled = {
        name: filled_in(text, values)
        for name, text in given.items()
        if name not in OWN_STORES and not name.startswith(ROLE_URL) and name != "CRUN_DATABASE_ROLE"
    }
    inherited = {name: value for name, value in os.environ.items() if name not in OWN_STORES}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sandbox = f"http://127.0.0.1:{ports['sandbox']}/v1"
    return {**inherited, **filled, "CRUN_HOME": str(home.path), "SANDBOX_URL": sandbox, "PATH": programs}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _stop_all(stack: Stack) -> None:
    for name in list(stack.processes):
        stack.stop(name)
