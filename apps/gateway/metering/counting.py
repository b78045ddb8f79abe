"""Counting tokens with tiktoken and the vocabularies that lie beside this module: closer than a token a byte.

Nothing here runs for a request that the cheap bound lets pass. See docs/admission.md for what is done with a count.
"""

import asyncio
import binascii
import hashlib
import lzma
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

import tiktoken

from apps.catalog.contracts import OfferedModel

SLICE: Final = 4_096
"""Characters that are counted at once: the library's splitter overflows its stack on very long runs of white space. A
cut adds a token at most."""
INLINE_CHARACTERS: Final = 16_384
"""Less text than this is counted where it is, in half a millisecond; more goes to a thread."""
MAX_WAITING: Final = 8
"""So many long texts are counted or wait for it in one process; for more, the cheap bound has to do."""
PATIENCE_S: Final = 0.25
"""So long a text waits for its turn behind others; then the cheap bound has to do for it."""
OWN_MARGIN: Final = 1.1
"""For models that use the encoding we count with: vendors render tools and schemas in their own way."""
OTHER_MARGIN: Final = 2.0
"""For models with another tokenizer, of what o200k_base counts."""
DIGESTS: Final = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
_FOLDER: Final = Path(__file__).parent / "vocabulary"


class Measure(NamedTuple):
    """How to count for a model: the encoding, and by how much its own count may be larger."""

    encoding: str
    margin: float

    @property
    def is_exact(self) -> bool:
        """Whether the model counts text as we do."""
        return self.margin == OWN_MARGIN


def measure_of(model: OfferedModel) -> Measure:
    """By the tokenizer that the catalog names; without a name, OpenAI's models use o200k_base."""
    name = model.tokenizer or ("o200k_base" if model.vendor == "OpenAI" else "")
    return Measure(name, OWN_MARGIN) if name in DIGESTS else Measure("o200k_base", OTHER_MARGIN)


def read_vocabulary(name: str) -> bytes:
    """The `.tiktoken` file of an encoding. Raises ValueError when it is not the published one."""
    content = lzma.decompress((_FOLDER / f"{name}.tiktoken.xz").read_bytes())
    if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
        raise ValueError(f"the vocabulary {name} is damaged")
    return content


class TokenCounter:
    """The encodings of this process, each loaded when it is first needed: 0.3 s and 60 MB, in a thread of its own.

    0.13 s of that hold Python's lock, once in the life of a process."""

    def __init__(self) -> None:
        self._encodings: dict[str, tiktoken.Encoding] = {}
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokens")
        self._waiting = 0

    def is_loaded(self, measure: Measure) -> bool:
        """Whether `count_now` can count without loading anything."""
        return measure.encoding in self._encodings

    def begin_to_load(self, measure: Measure) -> None:
        """Have it loaded soon."""
        if not self.is_loaded(measure):
            self._thread.submit(self._encoding, measure.encoding)

    async def load(self, measure: Measure) -> None:
        """Return when it is loaded."""
        if not self.is_loaded(measure):
            await asyncio.get_running_loop().run_in_executor(self._thread, self._encoding, measure.encoding)

    def count_now(self, text: str, measure: Measure, *, enough: int = sys.maxsize) -> int:
        """Tokens of a short text. Where they are more than `enough` the rest is not counted."""
        encoding = self._encoding(measure.encoding)
        count = 0
        for start in range(0, len(text), SLICE):
            count += len(encoding.encode_ordinary(text[start : start + SLICE]))
            if count > enough:
                break
        return count

    async def count(self, text: str, measure: Measure, *, enough: int = sys.maxsize) -> int | None:
        """Tokens of a text of any length, never in the way of the event loop. None: too many are waiting already, or
        its turn did not come within PATIENCE_S. Where they are more than `enough` the rest is not counted."""
        if len(text) < INLINE_CHARACTERS and measure.encoding in self._encodings:
            return self.count_now(text, measure, enough=enough)
        if self._waiting >= MAX_WAITING:
            return None
        self._waiting += 1
        work = self._thread.submit(self.count_now, text, measure, enough=enough)
        counted = asyncio.wrap_future(work)
        try:
            await asyncio.wait([counted], timeout=PATIENCE_S if self.is_loaded(measure) else None)
            # What the thread has begun cannot be called back, and is soon there.
            return None if work.cancel() else await counted
        finally:
            work.cancel()
            self._waiting -= 1

    def _encoding(self, name: str) -> tiktoken.Encoding:
        if name not in self._encodings:
            with self._lock:
                if name not in self._encodings:
                    self._encodings[name] = _load(name)
        return self._encodings[name]


def bound_of(count: int, measure: Measure) -> int:
    """No more tokens than this are billed for text of which we counted so many."""
    return math.ceil(count * measure.margin)


def _load(name: str) -> tiktoken.Encoding:
    lines = read_vocabulary(name).splitlines()
    ranks = {binascii.a2b_base64(line.partition(b" ")[0]): int(line.partition(b" ")[2]) for line in lines}
    pattern = (_FOLDER / f"{name}.pattern").read_text().removesuffix("\n")
    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})


TOKENS: Final = TokenCounter()
"""The one of this process."""
