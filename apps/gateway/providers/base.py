"""What every provider file gives: how to ask, and how to read what comes back."""

from dataclasses import dataclass
from typing import Protocol

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.chat import ChatRequest
from apps.gateway.errors import GatewayError


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One HTTP POST. `headers` are all that is sent: nothing of the caller's goes through by itself."""

    url: str
    headers: dict[str, str]
    body: bytes


class Provider(Protocol):
    """One dialect spoken to upstreams. Stateless and without I/O."""

    def chat_request(
        self, chat: ChatRequest, model: OfferedModel, target: Target, *, request_id: str
    ) -> UpstreamRequest:
        """The request in this dialect."""

    def failure(self, status: int, retry_after: str | None, body: bytes, *, target: Target, model: str) -> GatewayError:
        """What an answer other than 200 means to our caller, without anything of the upstream's that must not leak."""
