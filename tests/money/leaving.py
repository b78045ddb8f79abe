"""Clients that leave at random moments: on plain sockets, so that every moment of a request can be chosen."""

import asyncio
import random
import re
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import orjson

MOMENTS: Final = ("head", "body", "unanswered", "stream", "done", "whole", "stays")
"""When a client leaves: before its head or its body is complete, before the first byte of the answer, somewhere in it,
at its last bytes, at `[DONE]`; or it stays, and asks again on the same connection."""
MARK: Final = re.compile(rb"m[0-9a-f]{12}k")
PATIENCE_S: Final = 60.0
BUSY: Final = 503


@dataclass
class Leavers:
    """How many left when, and whatever was wrong with what they got."""

    host: str
    port: int
    key: str
    chance: random.Random
    left: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    busy: int = 0
    wrong: list[str] = field(default_factory=list)

    async def storm(self, number: int, *, at_once: int) -> None:
        """So many requests, `at_once` of them at any time."""
        numbers = iter(range(number))

        async def go_on() -> None:
            client: Client | None = None
            for _ in numbers:
                client = await self._one(client)
            if client is not None:
                client.leave()

        await asyncio.gather(*(go_on() for _ in range(at_once)))

    async def _one(self, client: "Client | None") -> "Client | None":
        """One request; the connection, if it can be used again."""
        moment = self.chance.choice(MOMENTS)
        mark = f"m{self.chance.getrandbits(48):012x}k"
        client = client or await Client.connect(self.host, self.port)
        self.left[moment] += 1
        try:
            async with asyncio.timeout(PATIENCE_S):
                stays = await self._ask(client, moment, mark)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if moment in ("done", "stays"):
                self.wrong.append(f"{moment} {mark}: {error!r} after {bytes(client.received[-200:])!r}")
            stays = False
        except TimeoutError:
            self.wrong.append(f"{moment} {mark}: no end after {bytes(client.received[-200:])!r}")
            stays = False
        self._look(client, moment, mark)
        if stays:
            client.received.clear()
            return client
        client.leave(abruptly=self.chance.random() < 0.5)
        return None

    async def _ask(self, client: "Client", moment: str, mark: str) -> bool:
        """Send what is to be sent and read what is to be read; whether the client stays."""
        chance = self.chance
        is_stream = chance.random() < 0.7 or moment in ("stream", "done")
        body = orjson.dumps(_body(chance, mark, is_stream=is_stream))
        head = (
            f"POST /api/v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        if moment == "head":
            await client.send(head[: chance.randrange(1, len(head))])
        elif moment == "body":
            await client.send(head + body[: chance.randrange(len(body))])
        else:
            await client.send(head + body)
        match moment:
            case "head" | "body" | "unanswered":
                await asyncio.sleep(chance.choice((0, 0.001, chance.random() * 0.02)))
            case "stream":
                await client.read_some(chance.randrange(1, 4_000))
            case "whole":
                await client.read_answer(but=chance.randrange(1, 40))
            case _:
                await client.read_answer(stop_at_done=moment == "done")
                return moment == "stays"
        return False

    def _look(self, client: "Client", moment: str, mark: str) -> None:
        """Nobody else's words may be in an answer, and one that was waited for must have its own."""
        received = bytes(client.received)
        foreign = set(MARK.findall(received)) - {mark.encode()}
        if foreign:
            self.wrong.append(f"{moment} {mark}: somebody else's {foreign}")
        if moment not in ("done", "stays") or not received:
            return
        status = int(received[9:12])
        if status == BUSY and b"store_unavailable" in received:
            self.busy += 1
        elif status != 200 or mark.encode() not in received:
            self.wrong.append(f"{moment} {mark}: {received[:400]!r}")
        else:
            self.answered += 1


class Client:
    """One connection, and the bytes of the answer that it has."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.received = bytearray()

    @classmethod
    async def connect(cls, host: str, port: int) -> "Client":
        return cls(*await asyncio.open_connection(host, port, limit=1 << 20))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_some(self, most: int) -> None:
        """Read until there are so many bytes, or the end."""
        while len(self.received) < most and (part := await self._reader.read(most - len(self.received))):
            self.received += part
            if b"[DONE]" in self.received[-64:]:
                return

    async def read_answer(self, *, but: int = 0, stop_at_done: bool = False) -> None:
        """The answer by its framing; all of it, or `but` so many of its last bytes, or up to `[DONE]`."""
        self.received += (head := await self._reader.readuntil(b"\r\n\r\n"))
        if found := re.search(rb"content-length: (\d+)", head.lower()):
            size = int(found[1])
            self.received += await self._reader.readexactly(max(0, size - but))
            return
        while True:
            line = await self._reader.readuntil(b"\r\n")
            size = int(line, 16)
            part = await self._reader.readexactly(size + 2)
            self.received += part[:-2]
            if size == 0 or (b"[DONE]" in part and (stop_at_done or but)):
                return

    def leave(self, *, abruptly: bool = False) -> None:
        """Close the connection, or reset it."""
        if abruptly and (plain := self._writer.get_extra_info("socket")) is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort() if abruptly else self._writer.close()


def _body(chance: random.Random, mark: str, *, is_stream: bool) -> dict[str, object]:
    script: dict[str, object] = {"chunks": chance.randrange(1, 60), "chunk_delay_ms": chance.choice((0, 0, 0, 1, 3))}
    if chance.random() < 0.2:
        script["first_byte_delay_ms"] = chance.randrange(1, 30)
    padding = "x " * (chance.randrange(35_000) if chance.random() < 0.05 else 0)  # no estimate is above its words
    return {
        "model": "truth-echo",
        "messages": [{"role": "system", "content": padding}, {"role": "user", "content": f"{mark} a b c d e f g h"}],
        "stream": is_stream,
        "max_tokens": 100,
        "sandbox": script,
    }
