"""Whether this process was asked to stop. Then it is not ready, and serves what still comes."""


class Stopping:
    """One a process; its server sets it."""

    __slots__ = ("is_asked",)

    def __init__(self) -> None:
        self.is_asked = False


STOPPING = Stopping()
