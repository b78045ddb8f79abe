"""What every provider file gives: how to ask, and how to read what comes back."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.large_content import Content
from apps.gateway.errors import GatewayError
from apps.gateway.providers.short_lived import Source


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One HTTP POST. `headers` are all that is sent: nothing of the caller's goes through by itself."""

    url: str
    headers: dict[str, str]
    body: Content
    dropped: tuple[str, ...] = ()
    """Fields of the caller's request that this dialect cannot express, or not as they were written."""
    sign: Callable[[str, str], dict[str, str]] | None = None
    """Makes the headers that go beside these: of the SHA-256 of the body, in hex, and of the credential."""
    credential: str | Source = ""
    """What it is signed with, or what that is got with."""


class StreamTranslator(Protocol):
    """A foreign stream on its way to Chat Completions. One a stream; pure.

    What comes out is what an OpenAI upstream would have sent: chunks as server-sent events, a failure as an event with
    a top-level `error`, usage (in the vendor's own shape) in a chunk of its own, and `[DONE]` after a whole answer
    only."""

    def feed(self, received: bytes) -> bytes:
        """The events that these bytes complete; b"" while there is none."""

    def end(self) -> bytes:
        """The upstream closed the connection: what was still to be said. Never makes a torn answer look whole."""


class Provider(Protocol):
    """One dialect spoken to upstreams. Stateless and without I/O."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        """The request in this dialect. Raises GatewayError (400) for what it cannot express."""

    def whole_answer(self, body: bytes) -> dict[str, Any]:
        """An answer as a Chat Completions object; its `usage` stays in the vendor's own shape. Raises ValueError when
        it is none."""

    def translator(self) -> StreamTranslator | None:
        """For the stream of one answer; None for a dialect whose streams are Chat Completions already."""

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        """What an answer other than 200 means to our caller, without anything of the upstream's that must not leak."""


class EmbeddingsProvider(Protocol):
    """What a dialect has beside that, if it can be asked for embeddings. Its answers are OpenAI's."""

    def embeddings_request(self, asked: EmbeddingsRequest, target: Target, *, request_id: str) -> UpstreamRequest:
        """The request in this dialect."""
