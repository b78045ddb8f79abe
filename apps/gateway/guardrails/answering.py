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
    guarding = asked.guarding
    return guarding is not None and bool(guarding.guards.output or guarding.guards.output_moderation)


def stream_guard(asked: ModelRequest) -> StreamGuard | None:
    """What guards the stream that answers this request; None when no rule reads answers."""
    return StreamGuard(asked.guarding) if asked.guarding is not None and reads_answers(asked) else None


def answer_guarding(asked: ModelRequest) -> Guarding | None:
    """What guards the whole answer to this request; None when no rule reads answers, or there is no text in it."""
    return asked.guarding if reads_answers(asked) and not isinstance(asked, EmbeddingsRequest) else None


async def guard_answer(answer: dict[str, Any], guarding: Guarding) -> None:
    """Take out of an answer what must not go on. Raises GatewayError: 400 for what a rule forbids, 503."""
    choices = [choice for choice in answer["choices"] if isinstance(choice, dict)]
    said = [choice.get("message") for choice in choices]
    if await read_texts(list(texts_within(said)), guarding, "output"):
        for choice in choices:
            choice.pop("logprobs", None)  # they would tell what was redacted
    if guarding.judge is not None:
        await guarding.judge([place.text for place in texts_within(said)], "output")
