"""`python -m bench.callers`: CPU of a chunk through the gateway for callers of each dialect, in times of one passed on.

The upstream speaks Chat Completions. `bench.translated` has what the dialects' own code costs for every pair.
"""

import operator
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from typing import Any, Final

import click

from bench.cpu import cpu_s
from bench.driver import BODY, Asking, Target
from bench.rounds import MEDIUM, SPACING
from bench.stage import Stage, check_records, judge, say, stage

LIMIT: Final = 4.0
PACE_MS: Final = 5.0
_USER: Final = BODY["messages"][1]["content"]
_ASKED: Final[dict[str, Any]] = {"model": BODY["model"], "temperature": BODY["temperature"]}
CALLERS: Final = {
    "messages": Asking(
        {**_ASKED, "max_tokens": 256, "messages": [{"role": "user", "content": _USER}]},
        limit="max_tokens",
        content='"type":"text_delta"',
        end='data: {"type":"message_stop"}\n\n',
    ),
    "responses": Asking(
        {**_ASKED, "input": _USER, "store": False},
        limit="max_output_tokens",
        content='"type":"response.output_text.delta"',
        end="}\n\n",
    ),
    "completions": Asking({**_ASKED, "prompt": _USER}, limit="max_tokens", content='"text":"0', end="data: [DONE]\n\n"),
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Medians of so many.")
@click.option("--check", is_flag=True, help="Fail when a limit is missed.")
def main(*, rounds: int, check: bool) -> None:
    """Print the CPU of a chunk, all CPU / chunks of streams of 100, for each caller's dialect. About two minutes."""
    with stage(pace_ms=PACE_MS) as on:
        chat = on.gateway
        others = [replace(chat, path=f"/api/v1/{name}", asking=asking) for name, asking in CALLERS.items()]
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            first = number % (1 + len(others))
            targets = [chat, *others]
            for target in targets[first:] + targets[:first]:
                found[target.path].append(_chunk_us(on, target))
        check_records(on)
    passed_us = statistics.median(found[chat.path])
    click.echo(f"a chunk that is passed on: {passed_us:.1f} us")
    held = [_judged(target, statistics.median(found[target.path]), passed_us) for target in others]
    sys.exit(1 if check and not all(held) else 0)


def _chunk_us(on: Stage, target: Target) -> float:
    connections = on.generator.connections
    load = replace(MEDIUM, per_second=connections * 1000 / (MEDIUM.chunks * PACE_MS * SPACING))
    on.generator.prepare(target, load)
    before = cpu_s(target.pids[0])
    on.generator.go(target, load)
    return (cpu_s(target.pids[0]) - before) / (load.requests * load.chunks) * 1e6


def _judged(target: Target, chunk_us: float, passed_us: float) -> bool:
    name = f"{target.path}: {chunk_us:.1f} us a chunk"
    return judge(name, chunk_us / passed_us, limit=LIMIT, unit="times", is_good=operator.le)


if __name__ == "__main__":
    main()
