"""A caller that hides nothing: every byte of an answer, how it ended, when, and many of them at once."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson

from tests.acceptance.installing import Installation

LIMIT_S = 60.0
_WORDS = ("a", "quick", "fox", "met", "two", "lazy", "dogs", "near", "an", "old", "mill", "and", "sang", "of", "tea")


@dataclass
class Answer:
    """What came back for one request. `broken` names the error when the connection did not end as HTTP says."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    broken: str = ""
    took_s: float = 0.0

    @property
    def request_id(self) -> str:
        return self.headers.get("x-request-id", "")

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[bytes]:
        """The data of a stream's events."""
        return [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events that are JSON."""
        return [orjson.loads(event) for event in self.events if event != b"[DONE]"]

    @property
    def is_done(self) -> bool:
        """Whether a stream ended as a whole one does."""
        return bool(self.events) and self.events[-1] == b"[DONE]"

    @property
    def text(self) -> str:
        """The content, streamed or not."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            return str(self.json["choices"][0]["message"]["content"])
        deltas = [chunk["choices"][0]["delta"] for chunk in self.chunks if chunk.get("choices")]
        return "".join(delta.get("content") or "" for delta in deltas)

    @property
    def usage(self) -> dict[str, Any]:
        """The usage that the client was told."""
        holder = self.chunks[-1] if self.events else self.json
        return dict(holder["usage"])

    @property
    def error(self) -> dict[str, Any]:
        """The error object of an answer or of a stream's last event; {} when there is none."""
        try:
            holder = self.chunks[-1] if self.events else self.json
        except (ValueError, IndexError):
            return {}
        return dict(holder.get("error") or {})

    @property
    def is_whole(self) -> bool:
        """A complete answer, streamed or not."""
        is_stream = self.headers.get("content-type", "").startswith("text/event-stream")
        return self.status == 200 and not self.broken and (self.is_done or not is_stream) and not self.error


class Caller:
    """Sends requests with one key, each on a connection of the pool that it is given."""

    def __init__(self, session: aiohttp.ClientSession, installation: Installation, key: str) -> None:
        self._session = session
        self._url = f"{installation.api}/chat/completions"
        self._headers = {"authorization": f"Bearer {key}"}

    async def ask(
        self,
        model: str,
        content: Any = "one two three",
        *,
        on_piece: Callable[[bytes], None] = len,  # type: ignore[assignment]  # any function of bytes will do
        **fields: Any,
    ) -> Answer:
        """One request, its answer read to the end. Never raises for what happens on the wire."""
        answer = Answer()
        body = {"model": model, "messages": [{"role": "user", "content": content}], **fields}
        began = time.monotonic()
        try:
            async with self._session.post(self._url, json=body, headers=self._headers) as response:
                answer.status = response.status
                answer.headers = {name.lower(): value for name, value in response.headers.items()}
                async for piece in response.content.iter_any():
                    answer.body += piece
                    on_piece(piece)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            answer.broken = f"{type(error).__name__}: {error}"
        answer.took_s = time.monotonic() - began
        return answer


@asynccontextmanager
async def caller(installation: Installation, key: str = "", *, connections: int = 0) -> AsyncIterator[Caller]:
    """A Caller with its own pool, of any size or of `connections`; the seeded key unless another is given."""
    connector = aiohttp.TCPConnector(limit=connections)
    limit = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=limit) as session:
        yield Caller(session, installation, key or installation.api_key)
        # Closing takes a turn of the loop until the transports are gone.
    await asyncio.sleep(0)


async def gather_limited(work: Iterable[Callable[[], Awaitable[Answer]]], at_once: int) -> list[Answer]:
    """All answers, in order, with at most `at_once` requests under way."""
    free = asyncio.Semaphore(at_once)

    async def one(start: Callable[[], Awaitable[Answer]]) -> Answer:
        async with free:
            return await start()

    return list(await asyncio.gather(*(one(start) for start in work)))


async def ask_until(
    asking: Caller, stop: asyncio.Event, *, at_once: int, pause_s: float = 0.05, **fields: Any
) -> list[Answer]:
    """Keep `at_once` callers busy, half of them with streams, until `stop` is set; all their answers."""
    answers: list[Answer] = []

    async def one(number: int) -> None:
        while not stop.is_set():
            answers.append(await asking.ask("truth-echo", some_words(), stream=number % 2 == 0, **fields))
            await asyncio.sleep(pause_s)

    await asyncio.gather(*(one(number) for number in range(at_once)))
    return answers


def some_words(random_numbers: random.Random = random.Random(7)) -> str:  # noqa: B008 - one sequence for all is meant
    """One to twenty short words."""
    return " ".join(random_numbers.choices(_WORDS, k=random_numbers.randint(1, 20)))
