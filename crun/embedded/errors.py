"""What can go wrong with the embedded servers, in words for the person at the terminal."""

from crun.supervisor.program import StartBlocked


class EmbeddedServerError(StartBlocked):
    """An embedded server cannot be prepared or started. The message says how to mend it."""
