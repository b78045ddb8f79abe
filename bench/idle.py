"""`python -m bench.idle`: what an open stream on which nothing happens takes of a worker's memory.

All streams begin, each has its first chunk, and then the upstream says nothing for a long time; then all of them end
as they should, and are settled.
"""

import operator
import sys
import time
from threading import Event, Thread

import click

from bench.children import BenchFailed
from bench.driver import Load
from bench.rounds import SHORT
from bench.stage import check_records, judge, many_descriptors, rss_bytes, say, stage

LIMIT_KIB = 30.0
OPENED_PER_S = 500.0
"""So many begin in a second: what is measured is that they are there, not how fast they come."""
MOST_OPENING = 64
"""And fewer where the machine cannot: so many wait for their first chunk at a time, or this would measure overload."""
LOOK_S = 0.2


class MostMemory:
    """The most memory that a process had while the block ran."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = Event()
        self._thread = Thread(target=self._watch, daemon=True)
        self.most = self.before = rss_bytes(pid)

    def __enter__(self) -> "MostMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            self.most = max(self.most, rss_bytes(self._pid))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--streams", default=5_000, show_default=True, type=click.IntRange(10))
@click.option("--seconds", default=25.0, show_default=True, help="How long each says nothing.")
@click.option("--check", is_flag=True, help="Fail when the limit is missed.")
def main(*, streams: int, seconds: float, check: bool) -> None:
    """Print KiB by stream, client's and upstream's connection included."""
    many_descriptors()
    load = Load(SHORT.name, requests=streams, chunks=1, per_second=OPENED_PER_S, most_opening=MOST_OPENING)
    with stage(concurrency=streams, pace_ms=seconds * 1000) as on:
        pid = on.gateway.pids[0]
        with MostMemory(pid) as memory:
            say(f"{streams} streams open and are idle for {seconds:.0f} s, twice")
            on.generator.prepare(on.gateway, load)
            first_kib = (memory.most - memory.before) / 1024 / streams
            began = time.monotonic()
            at_once = int(on.generator.go(on.gateway, load)["most_open"])
        check_records(on)
        again_kib = (memory.most - memory.before) / 1024 / streams
        if at_once < streams:
            raise BenchFailed(f"only {at_once} were open at once: opening took longer than --seconds")
        say(f"all ended well after {time.monotonic() - began:.0f} s, and all are settled")
    click.echo(f"{'at their first opening':<58}{first_kib:>12.2f} KiB")
    held = judge("an idle stream", again_kib, limit=LIMIT_KIB, unit="KiB", is_good=operator.le)
    sys.exit(1 if check and not held else 0)


if __name__ == "__main__":
    main()
