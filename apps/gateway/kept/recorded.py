"""A stream on its way to the client that somebody writes down."""

from collections.abc import AsyncGenerator, Callable
from typing import Any


class RecordedStream(AsyncGenerator[bytes, None]):
    """The same stream; `note` gets each of its parts, and `over` is called when it has ended, however that was."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], note: Callable[[bytes], None], over: Callable[[bool], None]
    ) -> None:
        """`over` is told whether the source had come to its own end; it may be called twice."""
        self._source = source
        self._note = note
        self._over = over

    async def asend(self, value: None) -> bytes:
        """The next part of the answer."""
        try:
            part = await self._source.asend(value)
        except StopAsyncIteration:
            self._over(True)
            raise
        self._note(part)
        return part

    async def athrow(self, *error: Any) -> bytes:
        """Let the source deal with an error."""
        return await self._source.athrow(*error)

    async def aclose(self) -> None:
        """End the stream where it is."""
        try:
            await self._source.aclose()
        finally:
            self._over(False)
