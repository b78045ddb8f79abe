"""The sandbox as a process: how it starts, says so, and ends; and its doors: keys, paths, bad requests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from click.testing import CliRunner

from crun.sandbox.command import sandbox as command
from crun.sandbox.truth import wait_for_ends

STREAM = {"model": "sandbox-echo", "stream": True, "messages": [{"role": "user", "content": "word"}]}


def get(url: str, key: str | None = None, *, content: bytes = b"", method: str = "GET") -> tuple[int, Any]:
    """Status and JSON; a request with content is a POST."""
    headers = {} if key is None else {b"authorization": f"Bearer {key}".encode()}
    answer = httpx.request("POST" if content else method, url, headers=headers, content=content, timeout=5)
    return answer.status_code, orjson.loads(answer.content or b"null")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_middle_of_streams(launch: Any, number: int) -> None:
    running = launch()
    connections = []
    for at in range(20):
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=5)
        body = orjson.dumps({**STREAM, "sandbox": {"chunks": 1_000, "chunk_delay_ms": 50}})
        head = f"x-request-id: r{at}\r\ncontent-length: {len(body)}"
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        connections.append(connection)
    idle = socket.create_connection(("127.0.0.1", running.port), timeout=5)
    assert running.stop(number) == 0  # the streams had 50 s to go; it waits for a fifth of that
    for connection in (*connections, idle):
        with connection:
            rest = b"".join(iter(lambda one=connection: one.recv(65536), b""))  # type: ignore[misc]  # bound early
            assert b"[DONE]" not in rest
    assert {entry.outcome for entry in wait_for_ends(running.truth, 20).values()} == {"cut"}


def test_it_writes_its_port_to_a_file(launch: Any, tmp_path: Path) -> None:
    running = launch("--port-file", str(tmp_path / "port"))
    assert int((tmp_path / "port").read_text()) == running.port
    assert [path.name for path in tmp_path.iterdir()] == ["port"]


def test_it_serves_on_an_inherited_socket(launch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        running = launch("--fd", str(listening.fileno()), pass_fds=(listening.fileno(),))
    assert running.port == port
    assert get(f"{running.url}/models")[0] == 200


def test_a_taken_port_is_an_error_message_and_not_a_traceback(sandbox: Any) -> None:
    arguments = [sys.executable, "-m", "crun.sandbox", "--port", str(sandbox.port)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: the sandbox cannot run: ")
    assert "in use" in ended.stderr


def test_it_needs_no_django() -> None:
    unwanted = "any(name.split('.')[0] in ('django', 'apps') for name in sys.modules)"
    code = f"import sys, crun.sandbox.command; sys.exit({unwanted})"
    assert subprocess.run([sys.executable, "-c", code], timeout=10, check=False).returncode == 0


def test_the_subcommand_has_the_documented_options() -> None:
    shown = CliRunner().invoke(command, ["--help"])
    assert command.name == "sandbox"
    for option in ("--host", "--port", "--fd", "--port-file", "--truth", "--api-key"):
        assert option in shown.output


def test_with_a_key_every_other_bearer_is_refused(launch: Any) -> None:
    running = launch("--api-key", "right")
    assert get(f"{running.url}/models", "right")[0] == 200
    for key in (None, "wrong", "right2", "ü"):
        status, answer = get(f"{running.url}/models", key)
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert get(f"{running.url}/chat/completions", "wrong", content=orjson.dumps(STREAM))[0] == 401
    assert get(running.url.removesuffix("/v1") + "/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models/sandbox-echo", 200),
        ("GET", "/v1/models/sandbox-none", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/", 404),
        ("POST", "/v1/models", 404),
        ("HEAD", "/v1/models", 200),
    ],
)
def test_paths(sandbox: Any, method: str, path: str, status: int) -> None:
    assert get(sandbox.url.removesuffix("/v1") + path, method=method)[0] == status


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": 5}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
    ],
)
def test_a_bad_field_is_refused_by_name(ask: Callable[..., Any], change: dict[str, Any], param: str) -> None:
    fields = {"model": "sandbox-echo", "content": "a", **change}
    if "messages" in change:
        fields = {**fields, "content": None}
    received = ask(fields.pop("model"), fields.pop("content") or "a", **fields)
    assert received.status == 400
    assert received.json["error"]["param"] == param


@pytest.mark.parametrize("body", [b" ", b"{", b"[]", b"\xff", b'{"model": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(sandbox: Any, body: bytes) -> None:
    status, answer = get(f"{sandbox.url}/chat/completions", content=body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_what_is_no_http_is_refused(sandbox: Any) -> None:
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_body_over_the_limit_is_refused_with_413(sandbox: Any) -> None:
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 50000000\r\n\r\n")
        for _ in range(34):
            connection.sendall(b" " * 1_000_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_connections_are_kept_and_pipelined_requests_answered_in_order(sandbox: Any) -> None:
    def request(word: str) -> bytes:
        body = orjson.dumps({"model": "sandbox-echo", "messages": [{"role": "user", "content": word}]})
        return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
            len(body),
            body,
        )

    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as connection:
        connection.sendall(b"".join(request(f"word{number}") for number in range(40)))
        received = b""
        while b"word39" not in received:
            received += connection.recv(65536)
        order = [received.index(b'"word%d"' % number) for number in range(40)]
        assert order == sorted(order)
        connection.sendall(request("again"))
        assert b'"again"' in connection.recv(65536)


def test_an_expected_100_continue_is_sent(sandbox: Any) -> None:
    body = orjson.dumps({"model": "sandbox-echo", "messages": [{"role": "user", "content": "late"}]})
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as connection:
        head = f"expect: 100-continue\r\ncontent-length: {len(body)}"
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert b'"late"' in connection.recv(65536)


def test_delays_are_kept(ask: Callable[..., Any]) -> None:
    started = time.monotonic()
    ask(
        "sandbox-echo",
        "a b c",
        stream=True,
        sandbox={"first_byte_delay_ms": 60, "delay_ms": 60, "chunk_delay_ms": 20},
    )
    ask("sandbox-echo", "a b c", sandbox={"delay_ms": 60, "first_byte_delay_ms": 40})
    # 0.28 s in all, and 0.24 s without the shortest of them; timers may be early by a millisecond, never late enough
    assert time.monotonic() - started > 0.25


def test_no_descriptor_is_left_behind(sandbox: Any, ask: Callable[..., Any], eventually: Any) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{sandbox.process.pid}/fd"))

    eventually(lambda: descriptors() < 40)
    before = descriptors()
    for model in (
        "sandbox-echo",
        "sandbox-fault-reset-1",
        "sandbox-fault-cut-1",
        "sandbox-fault-refuse",
    ) * 10:
        ask(model, stream=True)
    eventually(lambda: descriptors() <= before)
