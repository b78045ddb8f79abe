"""A piece of text as both of its readers need it: characters, and the UTF-8 that RE2 searches. Pure."""

from typing import Final

_REPLACEMENT: Final = "\ufffd"


class Piece:
    """Offsets are in characters outside of here; RE2's are in bytes."""

    __slots__ = ("_at", "_is_ascii", "_led", "raw", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._is_ascii = text.isascii()
        try:
            self.raw = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair: no expression finds it, and what stands beside it must
            self.raw = "".join(_REPLACEMENT if "\ud800" <= each <= "\udfff" else each for each in text).encode()
        self._at = (0, 0)
        self._led = b""

    @property
    def led(self) -> bytes:
        """The bytes behind a line break, for who must see something before the first of them."""
        if not self._led:
            self._led = b"\n" + self.raw
        return self._led

    def byte(self, character: int) -> int:
        """Where a character begins."""
        return character if self._is_ascii else len(self.raw) - len(self._encoded_from(character))

    def character(self, byte: int) -> int:
        """Which character begins at this byte. Quick for offsets that grow."""
        if self._is_ascii:
            return byte
        known_byte, known = self._at if self._at[0] <= byte else (0, 0)
        found = known + len(self.raw[known_byte:byte].decode())
        self._at = (byte, found)
        return found

    def _encoded_from(self, character: int) -> bytes:
        return self.text[character:].encode("utf-8", "surrogatepass")
