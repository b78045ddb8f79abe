"""`crun.serve` with a sampling profiler inside: SIGUSR1 starts it afresh, SIGUSR2 stops it and writes what it saw.

    python -m bench.profiled --out FILE -- --fd N

The kernel's profiling timer counts CPU time, not time that passes, so waits and other processes are not
seen. The signal is looked at when a call into C returns: its time counts for the Python function that called.
"""

import argparse
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from crun.serve import main as serve

INTERVAL_S = 0.001


class Sampler:
    """Counts the functions in which the main thread was found: innermost (own), and anywhere on its stack (whole)."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._own: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()

    def start(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of SIGUSR1."""
        self._own.clear()
        self._whole.clear()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handler of SIGUSR2. The file appears whole."""
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        unfinished = self._out.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"own": self._own, "whole": self._whole}))
        unfinished.rename(self._out)

    def sample(self, _number: int, frame: FrameType | None) -> None:
        """Handler of SIGPROF."""
        if frame is not None:
            self._own[_place(frame)] += 1
        seen = set()
        while frame is not None:
            seen.add(_place(frame))
            frame = frame.f_back
        self._whole.update(seen)


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{code.co_firstlineno} {code.co_qualname}"


def main() -> None:
    """Install the signals, then be crun.serve."""
    parser = argparse.ArgumentParser(prog="bench.profiled", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("serve", nargs="+", help="arguments of crun.serve")
    options = parser.parse_args()
    sampler = Sampler(options.out)
    signal.signal(signal.SIGUSR1, sampler.start)
    signal.signal(signal.SIGUSR2, sampler.stop)
    signal.signal(signal.SIGPROF, sampler.sample)
    sys.argv = ["crun.serve", *options.serve]
    serve()


if __name__ == "__main__":
    main()
