"""`python -m bench.large`: a request with 20 MB of image: how many copies of it are in memory at once, and for how long
everybody else waits.

While the gateway takes such a body and passes it on, somebody asks for /healthz again and again: the longest answer is
the longest time for which the event loop did nothing else. Beside it stands the most CPU that the worker took during
one of these answers, which is no more on a machine that is busy with something else.
"""

import asyncio
import base64
import operator
import os
import statistics
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import orjson

from bench.installation import MODEL
from bench.stage import Stage, judge, rss_bytes, say, stage

BODY_BYTES = 20 << 20
LIMIT_COPIES = 3.0
LIMIT_MS = 20.0
LOOK_S = 0.002
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


def body_of(size: int) -> bytes:
    """A request with an image of nearly so many bytes, as clients write it."""
    image = base64.b64encode(os.urandom((size - 1_024) * 3 // 4)).decode()
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}},
    ]
    return orjson.dumps({"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": parts}]})


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--requests", default=5, show_default=True, type=click.IntRange(2), help="One after the other.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, requests: int, check: bool) -> None:
    """Print copies of the body, and milliseconds."""
    with stage() as on:
        copies, blocked_ms, busy_ms, quiet_ms = asyncio.run(_measure(on, requests))
    click.echo(f"{'the longest answer of /healthz without such a request':<58}{quiet_ms:>12.2f} ms")
    click.echo(f"{'CPU of the worker during the longest of these':<58}{busy_ms:>12.2f} ms")
    held = [
        judge("copies of the body in memory at once", copies, limit=LIMIT_COPIES, unit="", is_good=operator.le),
        judge("the event loop did nothing else for", blocked_ms, limit=LIMIT_MS, unit="ms", is_good=operator.le),
    ]
    sys.exit(1 if check and not all(held) else 0)


async def _measure(on: Stage, requests: int) -> tuple[float, float, float, float]:
    """The most copies, the medians of the longest waits and of the most CPU in one, and the wait without a request."""
    body, pid = body_of(BODY_BYTES), on.gateway.pids[0]
    quiet_ms = (await _watched(on, asyncio.sleep(0.5)))[0]
    copies, blocked_ms, busy_ms, before = [], [], [], rss_bytes(pid)
    for number in range(requests):
        longest_ms, most_busy_ms, most = await _watched(on, _ask(on, body))
        held = (most - before) / len(body)
        say(f"request {number + 1}: {held:.2f} copies, {longest_ms:.1f} ms, {most_busy_ms:.1f} ms of CPU")
        copies.append(held)
        blocked_ms.append(longest_ms)
        busy_ms.append(most_busy_ms)
    return max(copies), statistics.median(blocked_ms), statistics.median(busy_ms), quiet_ms


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


async def _ask(on: Stage, body: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", on.gateway.port)
    head = (
        f"POST {on.gateway.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
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
