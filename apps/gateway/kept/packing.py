"""A content on its way into the store: compressed piece by piece, within bounds on what it takes and on what it was."""

import zlib
from typing import Final

_FAST: Final = 1
_SMALL_WINDOW: Final = 13
_LITTLE_MEMORY: Final = 5
"""zlib's window and memory: 32 KiB for each content that is being packed."""
_SLICE_BYTES: Final = 256 << 10
"""Compressed at a time, so that not much is compressed of what turns out to be too large."""


class Packing:
    """Made for one content."""

    def __init__(self, *, most_bytes: int, most_plain: int) -> None:
        """`most_bytes` bounds what is kept, compressed; `most_plain` what comes, before it is compressed."""
        self._deflate = zlib.compressobj(_FAST, zlib.DEFLATED, _SMALL_WINDOW, _LITTLE_MEMORY)
        self._parts: list[bytes] = []
        self._left_bytes, self._left_plain = most_bytes, most_plain

    @property
    def is_too_large(self) -> bool:
        """Whether nothing of it will be kept."""
        return self._left_bytes < 0 or self._left_plain < 0

    def add(self, part: bytes) -> None:
        """The next bytes of the content."""
        self._left_plain -= len(part)
        for start in range(0, len(part), _SLICE_BYTES):
            if self.is_too_large:
                return
            self._keep(self._deflate.compress(part[start : start + _SLICE_BYTES]))

    def packed(self) -> bytes | None:
        """All of it, compressed; None when it is too large. Nothing can be added afterwards."""
        if not self.is_too_large:
            self._keep(self._deflate.flush())
        return None if self.is_too_large else b"".join(self._parts)

    def _keep(self, compressed: bytes) -> None:
        self._left_bytes -= len(compressed)
        if self.is_too_large:
            self._parts.clear()
        elif compressed:
            self._parts.append(compressed)


def unpacked(content: bytes) -> bytes:
    """The content as it came."""
    return zlib.decompress(content)
