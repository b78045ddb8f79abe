"""How long to wait before a program that died is started again."""

from dataclasses import dataclass


@dataclass
class Backoff:
    """At once for the first death, then 0.5 s, 1 s, 2 s ... at most `max_s`.

    Every `forgiven_after_s` of life forgives one death: a program that is killed now and then is back at once, one
    that cannot start is asked ever less often.
    """

    first_s: float = 0.5
    max_s: float = 10.0
    forgiven_after_s: float = 5.0
    deaths: int = 0

    def delay_s(self, lived_s: float) -> float:
        """Count one death after `lived_s` of life; returns the pause before the next start."""
        self.deaths = max(0, self.deaths - int(lived_s / self.forgiven_after_s)) + 1
        if self.deaths == 1:
            return 0.0
        exponent = min(self.deaths - 2, 16)  # the cap is reached long before; no overflow after days of dying
        return min(self.max_s, self.first_s * 2.0**exponent)
