"""The benchmark's side of the load generator: hands it a job, lets it start, takes its figures."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.children import BenchFailed
from bench.installation import MODEL
from bench.load import Job
from bench.upstream import COMPLETION_TOKENS
from crun.home import BASE_DIR

BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [
        {"role": "system", "content": "You are a careful engineer. You answer briefly and give figures."},
        {"role": "user", "content": "What does a proxy do between reading and writing, and what should that cost?"},
    ],
    "temperature": 0.2,
    "max_tokens": 256,
}
"""Of every request. For a stream the load generator adds what makes it one, and as many tokens as it has chunks."""


@dataclass(frozen=True)
class Asking:
    """A request in a dialect, and its stream. As `bench.load.Job` has them."""

    body: Mapping[str, Any]
    limit: str
    content: str
    end: str


CHAT = Asking(BODY, limit="max_tokens", content='"delta":{"content":', end="data: [DONE]\n\n")


@dataclass(frozen=True)
class Target:
    """Where to send requests, and the processes whose CPU time that costs (none for a direct connection)."""

    name: str
    port: int
    pids: tuple[int, ...]
    key: str
    """Sent to everybody: a request has the same size for all."""
    path: str = "/api/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    """More of them, for who cannot do without."""
    asking: Asking = CHAT


@dataclass(frozen=True)
class Load:
    """One kind of work. `chunks` is 0 for answers in one piece."""

    name: str
    requests: int
    chunks: int = 0
    per_second: float = 0.0
    """How many start in a second; 0 is as fast as the connections allow."""
    most_opening: int = 0
    """How many streams may wait for their first event at a time; 0 is any number."""


class LoadGenerator:
    """The child process, one job at a time."""

    def __init__(self, process: "subprocess.Popen[str]", connections: int) -> None:
        self._process = process
        self.connections = connections
        self.sent: Counter[str] = Counter()
        """Requests by target, warming-up included."""
        self.output_tokens: Counter[str] = Counter()
        """What the upstream told for them."""

    def prepare(self, target: Target, load: Load) -> None:
        """Open the connections and warm them up. Raises BenchFailed when an answer is wrong."""
        job = Job(
            host="127.0.0.1",
            port=target.port,
            path=target.path,
            headers={"Authorization": f"Bearer {target.key}", **dict(target.headers)},
            body=dict(target.asking.body),
            connections=self.connections,
            requests=load.requests,
            chunks=load.chunks,
            per_second=load.per_second,
            most_opening=load.most_opening,
            limit=target.asking.limit,
            content=target.asking.content,
            end=target.asking.end,
        )
        self.sent[target.name] += load.requests + self.connections
        self.output_tokens[target.name] += load.requests * (load.chunks or COMPLETION_TOKENS)
        self.output_tokens[target.name] += self.connections * (min(load.chunks, 1) or COMPLETION_TOKENS)
        self._tell(json.dumps(asdict(job)))
        self._read(f"{load.name} to {target.name}, warming up")

    def go(self, target: Target, load: Load) -> dict[str, float]:
        """Run the prepared job to its end. Raises BenchFailed when an answer is wrong."""
        self._tell("go")
        return self._read(f"{load.name} to {target.name}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _read(self, what: str) -> dict[str, float]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline() or '{"error": "the load generator ended"}')
        if "error" in answer:
            raise BenchFailed(f"{what}: {answer['error']}")
        return answer


@contextmanager
def load_generator(connections: int) -> Iterator[LoadGenerator]:
    """The load generator for the length of the block; it ends when its standard input does."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=BASE_DIR,
        start_new_session=True,
    ) as process:
        try:
            yield LoadGenerator(process, connections)
        finally:
            process.kill()
