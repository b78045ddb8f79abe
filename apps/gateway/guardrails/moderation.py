"""Asking the operator's moderation model about texts: OpenAI's `/moderations`, with a bound on time and size."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import orjson
from django.conf import settings

from apps.catalog.contracts import Target
from apps.gateway.errors import MODERATION_UNAVAILABLE, GatewayError
from apps.gateway.guardrails.reading import refusal
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.transport import Transport, UpstreamBroken, UpstreamUnreachable
from apps.policies.guarding import Guarding
from apps.policies.scanning import Side

MAX_PIECE: Final = 20_000
"""Characters of one input: longer texts are judged in pieces."""
MAX_PIECES: Final = 32
"""Of one request. What is longer cannot be judged, and each rule says what becomes of that."""
MAX_ANSWER_BYTES: Final = 1 << 20
log = logging.getLogger(__name__)


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool] = {}


class _Answer(msgspec.Struct):
    results: list[_Result]


_decoder = msgspec.json.Decoder(_Answer)


class Moderator:
    """Asks for one request."""

    def __init__(self, transport: Transport, target: Target | None, guarding: Guarding) -> None:
        """`target` is None where the operator has set up nobody, or not completely."""
        self._transport = transport
        self._target = target
        self._guarding = guarding

    async def judge(self, texts: Sequence[str], side: Side) -> None:
        """Raises GatewayError: 400 for what a rule forbids, 503 where nobody can judge and a rule wants that."""
        guarding = self._guarding
        rules = guarding.guards.input_moderation if side == "input" else guarding.guards.output_moderation
        text = "\n".join(texts)
        if not rules or not text.strip():
            return
        flagged = await self._flagged(text)
        for rule, check in rules:
            if flagged is None:
                if check.when_unavailable == "block" and rule.mode == "on":
                    raise GatewayError(MODERATION_UNAVAILABLE, "A guardrail of your organization cannot be judged now.")
                guarding.note(rule, side, "unchecked")
            elif flagged and (not check.categories or not flagged.isdisjoint(check.categories)):
                guarding.note(rule, side, "blocked" if rule.mode == "on" else "logged")
                if rule.mode == "on":
                    raise refusal(rule, side)

    async def _flagged(self, text: str) -> set[str] | None:
        """The categories that the model flags, with "" if any; None when it does not answer in time."""
        target = self._target
        pieces = [text[start : start + MAX_PIECE] for start in range(0, len(text), MAX_PIECE)]
        if target is None or len(pieces) > MAX_PIECES:
            return None
        try:
            async with asyncio.timeout(settings.MODERATION_TIMEOUT_S):
                answer = await self._asked(target, pieces)
        except (UpstreamUnreachable, UpstreamBroken, TimeoutError, msgspec.DecodeError, ValueError) as error:
            log.warning(
                "moderation did not answer", extra={"provider": target.provider, "reason": type(error).__name__}
            )
            return None
        flagged = [result for result in answer.results if result.flagged]
        return {"" for _ in flagged} | {
            name for result in flagged for name, is_so in result.categories.items() if is_so
        }

    async def _asked(self, target: Target, pieces: Sequence[str]) -> _Answer:
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        if target.api_key:
            headers["authorization"] = f"Bearer {target.api_key}"
        body: dict[str, Any] = {"model": target.upstream_model, "input": list(pieces)}
        request = UpstreamRequest(f"{target.base_url}/moderations", headers, orjson.dumps(body))
        response = await self._transport.post(request, on_send=_nothing)
        try:
            answer = await response.read(MAX_ANSWER_BYTES)
            if response.status != 200:
                raise ValueError(f"status {response.status}")
        finally:
            response.close()
        judged = _decoder.decode(answer)
        if len(judged.results) < len(pieces):
            raise ValueError("not all was judged")
        return judged


def _nothing() -> None:
    """Moderation is the operator's to pay: there is no record that must know when it was asked."""
