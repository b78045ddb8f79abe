"""What the benchmark says: a table for people, a JSON document for machines."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import Comparison, Cost, compare, median_figure, median_wakeups
from bench.installation import Recorded
from bench.machine import Machine
from bench.rounds import LOADS, Beside, Sample

COLUMNS = (
    ("requests_per_s", "requests/s", 0),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("first_event_p50_ms", "1st p50", 2),
    ("first_event_p99_ms", "1st p99", 2),
    ("reads_per_chunk", "reads", 2),
)
"""What the load generator saw: its name, the title in the table, decimal places."""


@dataclass(frozen=True)
class Outcome:
    """Everything that a run of the benchmark found."""

    machine: Machine
    nginx_version: str | None
    options: dict[str, Any]
    samples: Sequence[Sample]
    beside: Sequence[Beside]
    sent: Recorded
    recorded: Recorded
    took_s: float

    @property
    def comparisons(self) -> list[Comparison]:
        return compare(self.samples)

    @property
    def targets(self) -> list[str]:
        """In the order of the table."""
        found = {one.target for one in self.samples}
        return [name for name in ("direct", "nginx", "nginx tuned", "gateway") if name in found]


def render(outcome: Outcome) -> str:
    """The table."""
    return "\n".join([*_heading(outcome), *_costs(outcome), "", *_walls(outcome), "", *_besides(outcome)])


def write_json(outcome: Outcome, path: Path) -> None:
    """The same figures and all samples."""
    document = {
        **{name: value for name, value in asdict(outcome).items() if name != "samples"},
        "costs": [
            {**asdict(one), "ratio": one.ratio, "tuned_ratio": one.tuned_ratio, "is_missed": one.is_missed}
            for one in outcome.comparisons
        ],
        "samples": [asdict(one) for one in outcome.samples],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _heading(outcome: Outcome) -> Iterator[str]:
    machine, options = outcome.machine, outcome.options
    yield f"{machine.date}  {machine.cores} cores of {machine.cpu}, Linux {machine.kernel}, Python {machine.python}"
    yield (
        f"{options['rounds']} rounds, {options['concurrency']} connections, a chunk every {options['pace_ms']:g} ms, "
        f"{options['workers']} gateway process(es)"
    )
    yield f"load average before the run: {machine.load_average:.1f}; the run took {outcome.took_s:.0f} s"
    if outcome.nginx_version is None:
        yield "nginx is not installed: there is nothing to compare with, and no limit can be checked."
    else:
        yield (
            f"compared with nginx {outcome.nginx_version}, one worker, in front of the same upstream: as it comes "
            "(the limits count against this), and tuned (upstream connections kept, no buffering)"
        )
    yield ""


def _costs(outcome: Outcome) -> Iterator[str]:
    yield (
        f"{'CPU us: median (least..most)':<31}{'gateway':>24}{'nginx':>22}{'ratio':>7}{'limit':>6}"
        f"{'nginx tuned':>22}{'ratio':>7}"
    )
    for one in outcome.comparisons:
        nginx, tuned = (_spread(cost) if cost else "-" for cost in (one.nginx, one.tuned))
        missed = "  MISSED" if one.is_missed else ""
        yield (
            f"{one.what:<31}{_spread(one.gateway):>24}{nginx:>22}{_number(one.ratio, 1):>7}{_number(one.limit, 0):>6}"
            f"{tuned:>22}{_number(one.tuned_ratio, 1):>7}{missed}"
        )


def _spread(cost: Cost) -> str:
    return f"{cost.median_us:.1f} ({cost.least_us:.1f}..{cost.most_us:.1f})"


def _walls(outcome: Outcome) -> Iterator[str]:
    yield f"{'what the client saw: medians':<31}{''.join(f'{title:>10}' for _, title, _ in COLUMNS)}{'wake-ups':>10}"
    for load in LOADS:
        for target in outcome.targets:
            samples = [one for one in outcome.samples if (one.target, one.load) == (target, load.name)]
            if samples:
                cells = [_number(median_figure(samples, name), digits) for name, _, digits in COLUMNS]
                cells.append(_number(median_wakeups(samples), 2))
                yield f"{f'{load.name}: {target}':<31}{''.join(f'{cell:>10}' for cell in cells)}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _besides(outcome: Outcome) -> Iterator[str]:
    """What the other processes did for the gateway's requests is not in the gateway's figures."""
    yield f"{'whole run, by process':<31}{'CPU s':>10}{'idle ms/s':>12}{'us/request':>12}{'without idle':>14}"
    requests = outcome.sent.requests
    for one in outcome.beside:
        net_s = one.cpu_s - one.idle_cpu_s_per_s * one.wall_s
        yield (
            f"{one.name:<31}{one.cpu_s:>10.2f}{one.idle_cpu_s_per_s * 1000:>12.1f}"
            f"{one.cpu_s / requests * 1e6:>12.1f}{net_s / requests * 1e6:>14.1f}"
        )
    yield ""
    sent, recorded = outcome.sent, outcome.recorded
    yield (
        f"usage records: {recorded.requests} for {sent.requests} requests, "
        f"{recorded.output_tokens} output tokens for {sent.output_tokens} sent"
        f"{'' if sent == recorded else '  WRONG'}"
    )
