"""Places at which a process can be made to die, so that tests can show that no money is lost or doubled there.

`CRUN_CRASH_POINT=P4` ends the process, as `kill -9` would, when it comes to P4 for the first time; `P4:3` the third
time. Unset, as in every installation, `crash_point` is a function that does nothing, chosen once at import."""

import os
from collections.abc import Callable
from typing import Final

POINTS: Final = {
    "P1": "its key is known, nothing is held",
    "P2": "money is held in Redis, nothing stands in the journal",
    "P3": "`open` stands in the journal, the upstream knows nothing",
    "P4": "the upstream gets the request, no byte has come back",
    "P5": "bytes of a stream have reached the client",
    "P6": "a piece of a stream has come and is counted, the client has not got it",
    "P7": "the answer is whole, `close` does not stand in the journal",
    "P8": "`close` stands in the journal, the hold is not settled",
    "P9": "the charges are written, their transaction is not committed",
    "P10": "a batch is posted and committed, nobody was told",
    "P11": "Redis has settled the hold, the record is in the journal alone",
    "P12": "the client has everything, `[DONE]` included",
    "P13": "closed requests are read from the journal, not written to PostgreSQL",
    "P14": "records are committed, the position in the journal is not noted",
    "P15": "the sums of an hour are written, their transaction is not committed",
    "P16": "a payment is credited, its provider's webhook is not answered",
    "P17": "a request with an idempotency key has its end in the journal, its answer is not kept",
    "P18": "what is held is for a request's next model, the journal knows the one before",
    "P19": "the journal knows the next model, its upstream knows nothing",
}
"""Where a process can die. The names are those of the calls in the code."""
EXIT_CODE: Final = 137
"""As a shell reports a process that was killed by signal 9."""


class ArmedPoint:
    """Ends the process when its point is reached for the n-th time."""

    def __init__(self, setting: str) -> None:
        """`setting` as in CRUN_CRASH_POINT. Raises ValueError for a point that is not there."""
        self.arm(setting)

    def arm(self, setting: str) -> None:
        """Wait for this point from now on, as if it had never been reached. Raises ValueError."""
        point, _, times = setting.partition(":")
        if point not in POINTS or not (times or "1").isdigit() or not int(times or "1"):
            raise ValueError(f"CRUN_CRASH_POINT is a point of {', '.join(POINTS)}, perhaps with :N, not {setting!r}")
        self._point, self._left = point, int(times or "1")

    def __call__(self, point: str) -> None:
        """Die here, if this is the point and it is time."""
        if point == self._point:
            self._left -= 1
            if not self._left:
                os._exit(EXIT_CODE)


def _go_on(_point: str) -> None:
    """No process is to die."""


def _chosen(setting: str) -> Callable[[str], None]:
    return ArmedPoint(setting) if setting else _go_on


crash_point: Final = _chosen(os.environ.get("CRUN_CRASH_POINT", ""))
