"""The commands of docker-compose.yml and deploy/nginx/crun.conf at work together, as processes of this machine."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import orjson
import pytest

from apps.gateway.server.asgi import MAX_BODY_BYTES
from tests.deploy.stack import DOMAIN, Stack, ask, eventually, running_stack
from tests.programs import NGINX, missing

pytestmark = [
    pytest.mark.installation,
    pytest.mark.skipif(not NGINX, reason=missing("nginx")),
    pytest.mark.xdist_group("deploy-stack"),
]
CHAT = "/api/v1/chat/completions"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack(NGINX) as running:
        yield running


def chat(stack: Stack, **fields: object) -> tuple[int, dict[str, str], bytes]:
    body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "Hello, CRUN!"}], **fields}
    headers = {"Authorization": f"Bearer {stack.prepared['api_key']}", "Content-Type": "application/json"}
    return ask(stack.url + CHAT, headers=headers, body=orjson.dumps(body))


def test_a_completion_is_answered_and_lands_in_the_usage_records(stack: Stack) -> None:
    status, headers, body = chat(stack)
    assert status == 200, body
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "Hello, CRUN!"
    # From the gateway's journal through worker and beat into PostgreSQL.
    eventually(lambda: headers["x-request-id"] in _usage(stack))


def _usage(stack: Stack) -> dict[str, object]:
    command = stack.command("prepare")
    command[command.index("prepare") :] = ["usage", "export", "--organization", "demo", "--format", "jsonl"]
    rows = stack.run_command(command).splitlines()
    return {row["request_id"]: row for row in map(orjson.loads, rows)}


def test_a_stream_arrives_event_by_event(stack: Stack) -> None:
    body = orjson.dumps(
        {
            "model": "sandbox-echo",
            "stream": True,
            "messages": [{"role": "user", "content": "one two three four five six"}],
            "sandbox": {"chunk_delay_ms": 100},
        }
    )
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: {DOMAIN}\r\nAuthorization: Bearer {stack.prepared['api_key']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    arrivals, everything = [], b""
    with socket.create_connection(("127.0.0.1", stack.ports["nginx"]), timeout=10) as client:
        client.sendall(head.encode() + body)
        while received := client.recv(65536):
            arrivals += [time.monotonic()] * received.count(b'"delta":{"content"')
            everything += received
    assert b"data: [DONE]" in everything
    assert len(arrivals) == 6
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    assert min(gaps) > 0.05, gaps


def test_pages_come_from_the_web_process_and_know_their_host(stack: Stack) -> None:
    for host, expected in ((DOMAIN, 200), ("evil.example", 400)):
        status, _, _ = ask(f"{stack.url}/accounts/login/", headers={"Host": host})
        assert status == expected, host
    status, headers, _ = ask(f"{stack.url}/static/css/portal.css", headers={"Host": DOMAIN, "Accept-Encoding": "gzip"})
    assert (status, headers["content-encoding"]) == (200, "gzip")


def test_every_running_service_passes_its_health_check(stack: Stack) -> None:
    for name in ("gateway", "web", "sandbox", "worker", "beat"):
        eventually(lambda name=name: stack.is_healthy(name))  # type: ignore[misc]  # bound in the loop
    assert ask(f"{stack.url}/nginx-alive")[0] == 200
    assert ask(f"{stack.url}/readyz")[0] == 200


def test_a_body_above_the_limit_is_refused_in_the_shape_of_the_api(stack: Stack) -> None:
    too_long = f"POST {CHAT} HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.ports["nginx"]), timeout=10) as client:
        client.sendall(too_long.encode())
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_too_large"


def test_a_header_that_never_ends_is_cut(stack: Stack) -> None:
    # Our limit is 5 s, that of an nginx without one 60 s: in between lies room for a busy machine.
    with socket.create_connection(("127.0.0.1", stack.ports["nginx"]), timeout=45) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with suppress(ConnectionResetError):
            assert client.recv(1024) == b""


def test_while_the_gateway_is_away_clients_are_told_to_try_again(stack: Stack) -> None:
    assert stack.stop("gateway") == 0
    try:
        status, headers, body = chat(stack)
        assert (status, headers["retry-after"]) == (503, "1")
        assert orjson.loads(body)["error"]["code"] == "gateway_unavailable"
        assert ask(f"{stack.url}/accounts/login/", headers={"Host": DOMAIN})[0] == 200
    finally:
        stack.start("gateway")
        eventually(lambda: stack.is_healthy("gateway"))
    assert chat(stack)[0] == 200
