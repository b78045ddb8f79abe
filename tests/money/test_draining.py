"""A worker that is asked to stop: not ready first, streams end or are cut and billed, and it ends with status 0."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

from crun.home import BASE_DIR
from tests.money.checker import records_of
from tests.money.stage import USD, Stage

CHAT = "/api/v1/chat/completions"
WORDS = 400
"""At 50 ms each: a stream that no test waits for."""


class Worker:
    """A worker on a socket of its own, asked over connections of the test's own."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, key: str) -> None:
        self.process = process
        self.port = port
        self.key = key
        self._opened: list[http.client.HTTPConnection | http.client.HTTPResponse] = []

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._opened.append(connection)
        return connection

    def close(self) -> None:
        for opened in self._opened:
            opened.close()

    def stream(self, words: int) -> http.client.HTTPResponse:
        """A stream whose first word has come."""
        answer = self.ask(self.connect(), "w " * words, stream=True, sandbox={"chunk_delay_ms": 50})
        assert answer.status == 200
        while b'"content":"w' not in answer.readline():
            pass
        return answer

    def ask(self, connection: http.client.HTTPConnection, text: str, **fields: Any) -> http.client.HTTPResponse:
        body = {"model": "truth-echo", "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        connection.request("POST", CHAT, orjson.dumps(body), headers)
        answer = connection.getresponse()
        self._opened.append(answer)
        return answer

    def readiness(self) -> tuple[int, bytes]:
        connection = self.connect()
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def worker(stage: Stage, key: str, *, delay_s: float, timeout_s: float) -> Iterator[Worker]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        number = listener.fileno()
        environment = {
            **os.environ, **stage.environment,
            "CRUN_DRAIN_DELAY_S": str(delay_s), "CRUN_DRAIN_TIMEOUT_S": str(timeout_s),
        }  # fmt: skip
        command = [sys.executable, "-m", "crun.serve", "--fd", str(number)]
        process = subprocess.Popen(command, cwd=BASE_DIR, env=environment, pass_fds=[number])
        port = listener.getsockname()[1]
    started = Worker(process, port, key)
    try:
        until(lambda: started.readiness()[0] == 200)
        yield started
    finally:
        started.close()
        process.kill()
        process.wait(20)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def delivered(rest: bytes) -> int:
    """The words that came, with the one that `stream` waited for."""
    return 1 + rest.count(b'"content":"w')


@pytest.mark.timeout(120)
def test_it_is_not_ready_first_and_serves_on_until_its_delay_is_over(stage: Stage) -> None:
    owner, key = stage.found(USD)
    with worker(stage, key, delay_s=600, timeout_s=600) as asked:
        running = asked.stream(WORDS)
        asked.terminate()
        until(lambda: asked.readiness()[0] == 503)
        assert b"this process stops" in asked.readiness()[1]
        late = asked.ask(asked.connect(), "a b c")
        assert (late.status, late.getheader("connection")) == (200, "close")
        late.read()
        asked.terminate()  # who asks twice is in a hurry
        rest = running.read()
        assert asked.process.wait(30) == 0
    assert b'"code":"gateway_stopping"' in rest and b"[DONE]" not in rest
    stage.settle()
    cut, whole = sorted(records_of(stage, owner), key=lambda record: record["request_id"])
    assert (whole["status"], cut["status"]) == ("completed", "interrupted")
    assert cut["output_tokens"] == delivered(rest) < WORDS and cut["cost_nanos"] > 0
    assert stage.money(owner)["held"] == "0"


@pytest.mark.timeout(120)
def test_streams_end_by_themselves_while_idle_connections_are_closed(stage: Stage) -> None:
    owner, key = stage.found(USD)
    with worker(stage, key, delay_s=0, timeout_s=600) as asked:
        idle = asked.connect()
        asked.ask(idle, "a").read()
        running = asked.stream(20)
        asked.terminate()
        assert idle.sock.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            until(lambda: asked.readiness()[0] == 0)
        rest = running.read()
        assert asked.process.wait(30) == 0
    assert rest.endswith(b"data: [DONE]\n\n") and delivered(rest) == 20
    stage.settle()
    assert [record["status"] for record in records_of(stage, owner)] == ["completed", "completed"]


@pytest.mark.timeout(120)
def test_a_stream_that_outlasts_the_drain_ends_as_an_error_and_is_billed_for_what_came(stage: Stage) -> None:
    owner, key = stage.found(USD)
    with worker(stage, key, delay_s=0, timeout_s=0.5) as asked:
        running = asked.stream(WORDS)
        asked.terminate()
        rest = running.read()
        assert asked.process.wait(30) == 0
    assert b'"code":"gateway_stopping"' in rest and b"[DONE]" not in rest
    stage.settle()
    (record,) = records_of(stage, owner)
    assert (record["status"], record["estimated"]) == ("interrupted", True)
    assert record["output_tokens"] == delivered(rest) < WORDS
    assert stage.money(owner)["held"] == "0"
