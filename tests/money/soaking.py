"""How much: what fits into `make test`, or what `make soak` asks for; seeds, and figures for its summary."""

import json
import os
import random
from pathlib import Path

is_soak = bool(os.environ.get("CRUN_SOAK"))
"""Whether this is a run of `make soak`."""


def sized(small: int, soak: int) -> int:
    """`small` in `make test`; `soak`, or its share by CRUN_SOAK_SHARE (per cent), in `make soak`."""
    return max(1, soak * int(os.environ.get("CRUN_SOAK_SHARE", "100")) // 100) if is_soak else small


def seed_of_this_run() -> int:
    """CRUN_TEST_SEED, or a new one; it is printed, and pytest shows it beside a failure."""
    seed = int(os.environ.get("CRUN_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
    print(f"CRUN_TEST_SEED={seed}")
    return seed


def figure(name: str, **values: object) -> None:
    """Print a figure; in a soak it also goes into the summary."""
    print(f"FIGURE {name}: {', '.join(f'{key} {value}' for key, value in values.items())}")
    if summary := os.environ.get("CRUN_SOAK_FIGURES"):
        with Path(summary).open("a") as file:
            file.write(json.dumps({"name": name, **values}, default=str) + "\n")
