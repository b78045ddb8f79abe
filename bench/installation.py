"""A throw-away CRUN with everything on: `crun up` in a folder of its own, and the catalog pointed at the upstream."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.children import BenchFailed, running, wait_until
from crun.home import BASE_DIR, Home
from crun.supervisor.listening import free_port
from crun.supervisor.pidfiles import PidFiles
from crun.supervisor.program import Program, StopStep

MODEL = "bench-model"
START_LIMIT_S = 90.0
SHIPPING_LIMIT_S = 30.0
CREDIT_USD = "1000"
"""Enough for 24 million requests: what organizations begin with ends a run of a million."""
_OWNER = ("--organization", "demo")
_READY = "CRUN is ready"
_CATALOG = """\
providers:
  - {{id: bench, dialect: openai, base_url: "http://127.0.0.1:{upstream_port}/v1", api_key: "sk-bench-upstream"}}
models:
  - id: bench-model
    name: Bench model
    vendor: Bench
    context_length: 128000
    max_output_tokens: 16384
    input_modalities: [text, image]
    routes: [{{provider: bench, upstream_model: gpt-4o-mini, weight: 1}}]
    prices: [{{from: "2026-01-01T00:00:00Z", input: "0.15", output: "0.60", cache_read: "0.075"}}]
"""


@dataclass(frozen=True)
class Recorded:
    """What the installation counted."""

    requests: int
    output_tokens: int


@dataclass(frozen=True)
class Installation:
    """A running CRUN."""

    home: Home
    port: int
    environment: Mapping[str, str]
    key: str

    def gateway_pids(self) -> list[int]:
        """The ASGI workers."""
        named = PidFiles(self.home.run).read()
        return [pid for name, pid in named.items() if name.startswith("asgi-")]

    def pid(self, name: str) -> int | None:
        """Of another child: worker, beat, postgres, valkey. None when servers from outside are used."""
        return PidFiles(self.home.run).read().get(name)

    def recorded(self, *, expected: Recorded) -> Recorded:
        """All usage records, as `crun usage export` gives them; waits a while for those still on their way."""
        deadline = time.monotonic() + SHIPPING_LIMIT_S
        while True:
            began = time.monotonic()
            found = self._exported()
            if found == expected or began > deadline:  # of a million records an export alone takes longer than that
                return found
            time.sleep(1.0)

    def _exported(self) -> Recorded:
        """Counted as they come: of a million nobody keeps the rows."""
        requests = output_tokens = 0
        command = [sys.executable, "-m", "crun.cli", "usage", "export", "--organization", "demo", "--format", "csv"]
        with subprocess.Popen(
            command, env={**os.environ, **self.environment}, cwd=BASE_DIR, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for row in csv.DictReader(process.stdout):
                requests += 1
                output_tokens += int(row["output_tokens"])
        if process.returncode:
            raise BenchFailed("crun usage export failed")
        return Recorded(requests, output_tokens)


@contextmanager
def installation(
    folder: Path, *, upstream_port: int, workers: int = 1, more_environment: Mapping[str, str] | None = None
) -> Iterator[Installation]:
    """CRUN for the length of the block, with some more variables. Raises BenchFailed when it does not start."""
    home, port = Home(folder / "home"), free_port(0)
    environment = _environment(home, port=port, workers=workers) | dict(more_environment or {})
    program = Program(
        name="crun up",
        argv=(sys.executable, "-m", "crun.cli", "up"),
        log=folder / "crun.log",
        env=environment,
        stop_steps=(StopStep(signal.SIGTERM, 45.0),),
    )
    with running(program) as process:
        wait_until(lambda: _READY in program.log.read_text(), program, process=process, limit_s=START_LIMIT_S)
        catalog = folder / "catalog.yaml"
        catalog.write_text(_CATALOG.format(upstream_port=upstream_port))
        crun(environment, "catalog", "import", str(catalog))
        crun(environment, "credit", "grant", *_OWNER, "--amount-usd", CREDIT_USD, "--reason", "benchmark")
        key = crun(environment, "key", "create", *_OWNER, "--name", "bench").strip()
        time.sleep(2.0)  # gateways follow a change of the catalog within two seconds
        yield Installation(home, port, environment, key)


def crun(environment: Mapping[str, str], *arguments: str) -> str:
    """Standard output of a `crun` command. Raises BenchFailed when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "crun.cli", *arguments],
        env={**os.environ, **environment},
        cwd=BASE_DIR,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BenchFailed(f"crun {' '.join(arguments[:2])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _environment(home: Home, *, port: int, workers: int) -> dict[str, str]:
    """An installation as it comes: whatever the caller's environment or `.env` sets up is not measured."""
    return {
        "CRUN_HOME": str(home.path),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WORKERS": str(workers),
        "SANDBOX_PORT": str(free_port(0)),
        "CRUN_DRAIN_TIMEOUT_S": "5",
        "CRUN_JOURNAL_FSYNC": "never",
        "CRUN_LOG_LEVEL": "INFO",
        **dict.fromkeys(("DATABASE_URL", "REDIS_URL", "CRUN_JOURNAL_DIR", "DEBUG"), ""),
        **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY"), ""),
    }
