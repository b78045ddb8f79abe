"""A clock that stands still until a test turns it."""


class Clock:
    """`now` is in seconds."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
