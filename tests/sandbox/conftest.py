"""A sandbox in its own process, and a client that sees every byte it sends and how the connection ends."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

ECHO = "one two three four five"
READY = "Sandbox upstream ready at "


@dataclass
class Running:
    """A sandbox process."""

    process: subprocess.Popen[str]
    url: str
    truth: Path

    @property
    def port(self) -> int:
        return int(self.url.removesuffix("/v1").rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal once; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@dataclass
class Received:
    """Everything sent on one connection, and its end: `fin`, `rst`, or `open` after the time limit."""

    raw: bytes
    ending: str
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)  # the HTTP chunks, or the body as one
    is_whole: bool = False  # as HTTP sees it

    def __post_init__(self) -> None:
        head, found, rest = self.raw.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
        if self.header("transfer-encoding") != "chunked":
            self.pieces, self.is_whole = [rest], len(rest) == int(self.header("content-length") or -1)
            return
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            if length == 0:
                self.is_whole = rest == b"\r\n"
                return
            self.pieces.append(rest[:length])
            rest = rest[length + 2 :]

    def header(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known == name), None)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        """What stands behind `data: ` in each line of the body."""
        return [line[6:].rstrip(b"\r") for line in self.body.split(b"\n") if line.startswith(b"data: ")]

    @property
    def chunks(self) -> list[Any]:
        """The events that are JSON."""
        return [orjson.loads(event) for event in self.events if event != b"[DONE]"]

    @property
    def text(self) -> str:
        """The streamed content of choice 0."""
        deltas = [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk.get("choices")]
        return "".join(delta.get("content") or "" for delta in deltas)


def encode(body: dict[str, Any] | bytes, headers: dict[str, str], path: str = "/v1/chat/completions") -> bytes:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    fields = {"host": "sandbox", "connection": "close", "content-length": str(len(content)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def _receive_once(connection: socket.socket, deadline: float) -> bytes:
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    return connection.recv(1 << 20)


def receive(connection: socket.socket, limit_s: float) -> Received:
    parts: list[bytes] = []
    deadline = time.monotonic() + limit_s
    ending = "fin"
    try:
        while part := _receive_once(connection, deadline):
            parts.append(part)
    except ConnectionResetError:
        ending = "rst"
    except TimeoutError:
        ending = "open"
    return Received(b"".join(parts), ending)


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start a sandbox with more options; all that still run are stopped at the end."""
    started: list[Running] = []

    def start(*options: str, truth: Path | None = None, pass_fds: tuple[int, ...] = ()) -> Running:
        truth = truth or tmp_path_factory.mktemp("truth") / "truth.jsonl"
        command = [sys.executable, "-m", "crun.sandbox", "--port", "0", "--truth", str(truth), *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=pass_fds)
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith(READY), f"the sandbox said {line!r}"
        started.append(Running(process, line.removeprefix(READY), truth))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            assert running.stop() == 0


@pytest.fixture(scope="session")
def sandbox(launch: Callable[..., Running]) -> Running:
    """The sandbox that most tests share."""
    return launch()


@pytest.fixture(scope="session")
def ask(sandbox: Running) -> Callable[..., Received]:
    """One chat request on a connection of its own."""

    def send(model: str, content: Any = ECHO, *, limit_s: float = 5.0, **fields: Any) -> Received:
        headers = fields.pop("headers", {})
        port = fields.pop("port", sandbox.port)
        messages = content if isinstance(content, list) else [{"role": "user", "content": content}]
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(encode({"model": model, "messages": messages, **fields}, headers))
            return receive(connection, limit_s)

    return send


@pytest.fixture(scope="session")
def stream(ask: Callable[..., Received]) -> Callable[..., Received]:
    """One streamed chat request that asks for usage."""

    def send(model: str, content: Any = ECHO, **fields: Any) -> Received:
        options = fields.pop("stream_options", {"include_usage": True})
        return ask(model, content, stream=True, stream_options=options, **fields)

    return send


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Any]:
    """Call until the answer is truthy; the answer. Fails after 5 s."""

    def wait(question: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 5
        while not (answer := question()):
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.01)
        return answer

    return wait
