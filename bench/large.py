"""`python -m bench.large`: requests with 20 MB of image, in each dialect and for each kind of upstream: how many copies
are in memory at once, and for how long everybody else waits.

While the gateway takes such a body and passes it on, somebody asks for /healthz again and again. The most CPU that the
worker took during one of these answers is the longest for which the event loop does nothing else; how long an answer
took is told beside it, and more on a machine that is busy with something else.
"""

import asyncio
import base64
import os
import statistics
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import orjson

from bench.installation import crun
from bench.stage import Stage, rss_bytes, say, stage

BODY_BYTES = 20 << 20
LIMIT_COPIES = 3.0
LIMIT_MS = 20.0
LIMIT_CPU_MS = 15.0
LOOK_S = 0.002
FOLLOWED_S = 3.0
"""Gateways follow a change of the catalog within two seconds."""
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
CASES: Final = tuple(
    (endpoint, dialect)
    for endpoint in ("chat/completions", "messages", "responses")
    for dialect in ("openai", "anthropic", "gemini", "bedrock")
)
_PROVIDERS: Final = {
    "openai": "",
    "anthropic": "",
    "gemini": "",
    "bedrock": ", options: {region: eu-central-1}",
}
_PROVIDER: Final = """\
  - {{id: large-{dialect}, dialect: {dialect}, base_url: "http://127.0.0.1:{port}/v1", api_key: "AKID:secret"{more}}}
"""
_MODEL: Final = """\
  - id: large-{dialect}
    name: Large
    vendor: Bench
    context_length: 128000
    max_output_tokens: 16384
    input_modalities: [text, image]
    routes: [{{provider: large-{dialect}, upstream_model: bench-1, weight: 1}}]
    prices: [{{from: "2026-01-01T00:00:00Z", input: "0.15", output: "0.60"}}]
"""


class Seen(NamedTuple):
    """Of one request, or of several."""

    copies: float
    waited_ms: float
    busy_ms: float


def catalog(port: int) -> str:
    """A model of each dialect, whose upstream listens there."""
    providers = [_PROVIDER.format(dialect=name, port=port, more=more) for name, more in _PROVIDERS.items()]
    return "".join(("providers:\n", *providers, "models:\n", *(_MODEL.format(dialect=name) for name in _PROVIDERS)))


def body_of(size: int, endpoint: str, dialect: str) -> bytes:
    """A request with an image of nearly so many bytes, as clients write it."""
    image = base64.b64encode(os.urandom((size - 1_024) * 3 // 4)).decode()
    url, asked = f"data:image/png;base64,{image}", "What is this?"
    fields: dict[str, Any] = {"model": f"large-{dialect}"}
    if endpoint == "messages":
        source = {"type": "base64", "media_type": "image/png", "data": image}
        parts = [{"type": "text", "text": asked}, {"type": "image", "source": source}]
        fields |= {"max_tokens": 64, "messages": [{"role": "user", "content": parts}]}
    elif endpoint == "responses":
        parts = [{"type": "input_text", "text": asked}, {"type": "input_image", "image_url": url}]
        fields |= {"max_output_tokens": 64, "input": [{"role": "user", "content": parts}]}
    else:
        parts = [{"type": "text", "text": asked}, {"type": "image_url", "image_url": {"url": url}}]
        fields |= {"max_tokens": 64, "messages": [{"role": "user", "content": parts}]}
    return orjson.dumps(fields)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--requests", default=5, show_default=True, type=click.IntRange(2), help="One after the other.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, requests: int, check: bool) -> None:
    """Print copies of the body, and milliseconds."""
    with stage() as on:
        file = on.crun.home.path.parent / "large.yaml"
        file.write_text(catalog(on.direct.port))
        crun(on.crun.environment, "catalog", "import", str(file))
        time.sleep(FOLLOWED_S)
        quiet, seen = asyncio.run(_measure(on, requests))
    click.echo(f"the longest answer of /healthz without such a request: {quiet.waited_ms:.2f} ms")
    click.echo(f"{'endpoint':<18}{'upstream':<12}{'copies':>8}{'CPU ms':>9}{'waited ms':>11}")
    for (endpoint, dialect), each in seen.items():
        missed = "" if _holds(each) else "  MISSED"
        figures = f"{each.copies:>8.2f}{each.busy_ms:>9.1f}{each.waited_ms:>11.1f}"
        click.echo(f"{endpoint:<18}{dialect:<12}{figures}{missed}")
    click.echo(f"{'limit':<30}{LIMIT_COPIES:>8.2f}{LIMIT_CPU_MS:>9.1f}{LIMIT_MS:>11.1f}")
    sys.exit(1 if check and not all(map(_holds, seen.values())) else 0)


def _holds(seen: Seen) -> bool:
    """What took its time while others had the machine is not held against it."""
    return seen.copies <= LIMIT_COPIES and seen.busy_ms <= LIMIT_CPU_MS


async def _measure(on: Stage, requests: int) -> tuple[Seen, dict[tuple[str, str], Seen]]:
    """What is seen without a request, and for each case: the most copies, the medians of the longest waits and of the
    most CPU in one."""
    pid = on.gateway.pids[0]
    quiet_ms, quiet_cpu_ms, _ = await _watched(on, asyncio.sleep(0.5))
    before, found = rss_bytes(pid), {}
    for endpoint, dialect in CASES:
        body, seen = body_of(BODY_BYTES, endpoint, dialect), []
        for _ in range(requests):
            longest_ms, busiest_ms, most = await _watched(on, _ask(on, endpoint, body))
            seen.append(Seen((most - before) / len(body), longest_ms, busiest_ms))
        each = Seen(
            max(one.copies for one in seen),
            statistics.median(one.waited_ms for one in seen),
            statistics.median(one.busy_ms for one in seen),
        )
        say(
            f"{endpoint} for {dialect}: {each.copies:.2f} copies, {each.waited_ms:.1f} ms, {each.busy_ms:.1f} ms of CPU"
        )
        found[endpoint, dialect] = each
    return Seen(0, quiet_ms, quiet_cpu_ms), found


async def _watched(on: Stage, work: Coroutine[Any, Any, None]) -> tuple[float, float, int]:
    """The longest answer of /healthz while the work goes on and the most CPU during one, in ms, and the most memory."""
    reader, writer = await asyncio.open_connection("127.0.0.1", on.gateway.port)
    task = asyncio.create_task(work)
    schedstat = Path(f"/proc/{on.gateway.pids[0]}/schedstat")
    longest_s, busiest_ns, most = 0.0, 0, 0
    while not task.done():
        began, busy_ns = time.perf_counter(), _cpu_ns(schedstat)
        writer.write(HEALTH)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]))
        longest_s = max(longest_s, time.perf_counter() - began)
        busiest_ns = max(busiest_ns, _cpu_ns(schedstat) - busy_ns)
        most = max(most, rss_bytes(on.gateway.pids[0]))
        await asyncio.sleep(LOOK_S)
    writer.close()
    await task
    return longest_s * 1000, busiest_ns / 1e6, most


def _cpu_ns(schedstat: Path) -> int:
    """Of the main thread of a process, where its event loop runs."""
    return int(schedstat.read_text().split()[0])


async def _ask(on: Stage, endpoint: str, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", on.gateway.port)
    head = (
        f"POST /api/v1/{endpoint} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
        f"authorization: Bearer {on.gateway.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode())
    for start in range(0, len(body), 256 << 10):
        writer.write(body[start : start + (256 << 10)])
        await writer.drain()
    answer = await reader.read()
    writer.close()
    if not answer.startswith(b"HTTP/1.1 200"):
        raise click.ClickException(f"answered {answer[:300]!r}")


if __name__ == "__main__":
    main()
