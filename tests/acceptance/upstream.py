"""The upstream that tells the truth: a sandbox process with a log, and the catalog that offers it through CRUN."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from crun.home import BASE_DIR
from crun.sandbox.faults import PREFIX, fault_models
from crun.sandbox.truth import TruthEntry, read_truth

HOST = "127.0.0.77"  # of the loopback network, and found nowhere else: a leak shows
API_KEY = "sk-truth-0123456789abcdefghijklmnopqrstuvwxyz"
READY = "Sandbox upstream ready at "
PROVIDER = "truth"
REPRICED = ("truth-repriced", "truth-long")  # whose prices the tests change
FAULT = "truth-fault-"
OTHER_FAULTS = (f"{PREFIX}flaky-1", f"{PREFIX}cut-0")  # the sandbox lists numbered ones with 3

PRICE = {
    "input": Decimal("0.123456789"),
    "output": Decimal("1.000000007"),
    "cache_read": Decimal("0.050505051"),
    "reasoning": Decimal("2.718281828"),
}
"""USD per million tokens, with decimals that no binary fraction holds."""


@dataclass
class TruthUpstream:
    """A running sandbox with its log."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.removesuffix("/v1").rpartition(":")[2])

    def last_number(self) -> int:
        """Number of the latest request in the log: what comes later is above it."""
        return max((entry.n for entry in read_truth(self.log).values()), default=0)

    def entries_since(self, number: int) -> dict[str, TruthEntry]:
        """Requests that arrived after request `number`, by request id."""
        return {name: entry for name, entry in read_truth(self.log).items() if entry.n > number}

    def ended_since(self, number: int, *, limit_s: float = 20.0) -> dict[str, TruthEntry]:
        """As `entries_since`, once all of them have ended."""
        deadline = time.monotonic() + limit_s
        while True:
            entries = self.entries_since(number)
            still_open = sum(entry.outcome is None for entry in entries.values())
            if not still_open:
                return entries
            assert time.monotonic() < deadline, f"{still_open} requests are still open upstream"
            time.sleep(0.05)


@contextmanager
def running_upstream(folder: Path) -> Iterator[TruthUpstream]:
    """A sandbox on a port of its own that knows one API key and logs the truth."""
    log = folder / "truth.jsonl"
    options = ["--host", HOST, "--port", "0", "--truth", str(log), "--api-key", API_KEY]
    with subprocess.Popen(
        [sys.executable, "-m", "crun.sandbox", *options], cwd=BASE_DIR, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            assert line.startswith(READY), f"the sandbox said {line!r}"
            yield TruthUpstream(process, line.removeprefix(READY), log)
        finally:
            process.send_signal(signal.SIGTERM)


def fault_model(name: str) -> str:
    """Public id of the model whose upstream has the fault `name`."""
    return f"{FAULT}{name}"


def catalog(upstream: TruthUpstream) -> str:
    """The document that offers the upstream: an honest model of each kind, and one for every fault."""
    honest = {f"truth-{kind}": f"sandbox-{kind}" for kind in ("echo", "tools", "json", "vision")}
    honest |= dict.fromkeys(REPRICED, "sandbox-echo")
    faulty = {name.replace(PREFIX, FAULT): name for name in (*fault_models(), *OTHER_FAULTS)}
    models = [model(public, theirs) for public, theirs in {**honest, **faulty}.items()]
    provider = f'  - {{id: {PROVIDER}, dialect: openai, base_url: "{upstream.url}", api_key: "{API_KEY}"}}'
    return "\n".join(["providers:", provider, "models:", *models])


def model(public: str, upstream_model: str, *, starts: str = "2026-01-01T00:00:00Z", prices: str = "") -> str:
    """One model of the document, at PRICE from `starts` on; `prices` are further rows."""
    amounts = ", ".join(f'{bucket}: "{amount}"' for bucket, amount in PRICE.items())
    return f"""
  - id: {public}
    vendor: Truth
    context_length: 100000
    max_output_tokens: 8192
    input_modalities: [{"text, image" if upstream_model.endswith("vision") else "text"}]
    routes: [{{provider: {PROVIDER}, upstream_model: {upstream_model}}}]
    prices:
      - {{from: "{starts}", {amounts}}}
      {prices}"""
