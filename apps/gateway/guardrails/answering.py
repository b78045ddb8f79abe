"""The guardrails of a whole answer, before its client gets anything of it."""

from typing import Any

from apps.gateway.dialects.embeddings import EmbeddingsRequest
from apps.gateway.dialects.model_request import ModelRequest
from apps.gateway.dialects.texts import texts_within
from apps.gateway.guardrails.reading import read_texts
from apps.gateway.guardrails.streaming import StreamGuard
from apps.policies.guarding import Guarding


def reads_answers(asked: ModelRequest) -> bool:
    """Whether a rule reads the answer to this request."""
    return asked.guarding is not None and bool(asked.guarding.guards.output)


def stream_guard(asked: ModelRequest) -> StreamGuard | None:
    """What guards the stream that answers this request; None when no rule reads answers."""
    guarding = asked.guarding
    return StreamGuard(guarding) if guarding is not None and guarding.guards.output else None


def answer_guarding(asked: ModelRequest) -> Guarding | None:
    """What guards the whole answer to this request; None when no rule reads answers, or there is no text in it."""
    guarding = asked.guarding
    if guarding is None or not guarding.guards.output or isinstance(asked, EmbeddingsRequest):
        return None
    return guarding


async def guard_answer(answer: dict[str, Any], guarding: Guarding) -> None:
    """Take out of an answer what must not go on. Raises GatewayError (400) for what a rule forbids."""
    choices = [choice for choice in answer["choices"] if isinstance(choice, dict)]
    places = list(texts_within([choice.get("message") for choice in choices]))
    if await read_texts(places, guarding, "output"):
        for choice in choices:
            choice.pop("logprobs", None)  # they would tell what was redacted
