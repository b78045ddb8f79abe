"""How much: sizes that fit into `make test`, large ones with CRUN_ACCEPTANCE_SCALE=full; and figures to publish."""

import os

FULL = "full"
is_full = os.environ.get("CRUN_ACCEPTANCE_SCALE", "") == FULL


def sized(small: int, full: int) -> int:
    """`small` in an ordinary run, `full` when the run is asked for all."""
    return full if is_full else small


def figure(name: str, value: object) -> None:
    """Print a measured value; `pytest -s` shows it."""
    print(f"\nFIGURE {name}: {value}")


def within(limit_s: float) -> float:
    """A promised time, stretched on a machine that has more to do than processors: the promise is for a free one.

    Twice: the load is that of the last minute, and other tests may have begun since."""
    busy = os.getloadavg()[0] / (os.cpu_count() or 1)
    return limit_s if is_full else limit_s * 2 * max(1.0, busy)
