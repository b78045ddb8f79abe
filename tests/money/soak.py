"""`make soak`: the long runs, whole or in parts, two at a time; prints the figures at the end."""

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from crun.home import BASE_DIR

AT_ONCE = 2
HOUR_S = 3600


@dataclass(frozen=True)
class Job:
    """A command, and the share of its part (per cent) that it does."""

    command: str
    share: int = 100


def _tests(arguments: str, share: int = 100) -> Job:
    return Job(f"-m pytest -q -n 0 -p no:cacheprovider {arguments}", share)


PARTS = {
    "database": [_tests("tests/money/test_database_away.py")],
    "sequences": [_tests("tests/money/test_money_machine.py", 50)] * 2,
    "crashes": [
        _tests("tests/money/test_crash_points_of_requests.py"),
        _tests("tests/money/test_crash_points_of_posting.py"),
    ],
    "dollar": [_tests("tests/money/test_one_dollar.py", 50)] * 2,
    "stores": [_tests("tests/money/test_stores_in_a_storm.py tests/money/test_limits_of_four_workers.py")],
    "cancels": [_tests("-s tests/money/test_random_cancels.py")],
    "mutants": [Job("-m tests.money.mutating")],
}
"""In the order in which they begin: what waits most comes first."""


def run(part: str, job: Job, figures: Path) -> tuple[str, bool, float, str]:
    """Whether the job went well, how long it took in s, and what it said."""
    began = time.monotonic()
    environment = {**os.environ, "CRUN_SOAK": "1", "CRUN_SOAK_SHARE": str(job.share), "CRUN_SOAK_FIGURES": str(figures)}
    done = subprocess.run(
        [sys.executable, *shlex.split(job.command)], cwd=BASE_DIR, env=environment, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HOUR_S,
    )  # fmt: skip
    took_s = time.monotonic() - began
    print(f"{part}: {'passed' if not done.returncode else 'FAILED'} after {took_s:.0f} s", flush=True)
    if done.returncode:
        print(done.stdout[-20_000:], flush=True)
    return part, not done.returncode, took_s, done.stdout


def main() -> None:
    """Run the parts named as arguments, or all. Exit code 1 when one failed."""
    wanted = sys.argv[1:] or list(PARTS)
    if unknown := set(wanted) - PARTS.keys():
        sys.exit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.jsonl"
        figures.touch()
        jobs = [(part, job) for part in wanted for job in PARTS[part]]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            results = list(pool.map(lambda one: run(one[0], one[1], figures), jobs))
        rows = [json.loads(line) for line in figures.read_text().splitlines()]
    print(f"\nFigures ({time.monotonic() - began:.0f} s in all)")
    for name in dict.fromkeys(row["name"] for row in rows):
        print(f"  {name}: {_summed([row for row in rows if row['name'] == name])}")
    sys.exit(not all(passed for _, passed, _, _ in results))


def _summed(rows: list[dict[str, object]]) -> str:
    """Numbers added up over all runs of a test; `..._s` and other words as smallest to largest."""
    said = [f"runs {len(rows)}"]
    for key in rows[0]:
        values = [row[key] for row in rows if key in row]
        if key in ("name", "seed", "bounded", "budget"):
            continue
        if key == "verdict":
            wrong = [value for value in values if ": 0 lost, 0 doubled, 0 over-billed" not in str(value)]
            said.append(f"lost, doubled or over-billed in {len(wrong)} runs")
        elif key.endswith(("_s", "_nanos")):
            said.append(f"{key} {min(values)} to {max(values)}")  # type: ignore[type-var]  # numbers
        else:
            said.append(f"{key} {sum(values)}")  # type: ignore[arg-type]  # numbers
    return ", ".join(said)


if __name__ == "__main__":
    main()
