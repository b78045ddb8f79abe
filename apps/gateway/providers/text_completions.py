"""Legacy Completions for upstreams that serve them: OpenAI's instructed models, vLLM, DeepSeek's beta, Mistral's FIM.
Pure. Answers become Chat Completions like those of all others, so that they are billed, held for and guarded alike.

Sources: the Completions reference of OpenAI, "Create FIM Completion (Beta)" of DeepSeek's API, and "Fill in the Middle"
of Mistral's."""

from typing import Any, Final

from apps.catalog.contracts import OfferedModel, Target
from apps.gateway.dialects.chat import OWN_FIELDS, dropped_options
from apps.gateway.dialects.completions import CompletionsRequest, served_as
from apps.gateway.dialects.large_content import written
from apps.gateway.dialects.sse import event_data
from apps.gateway.dialects.vendor_json import read_json
from apps.gateway.dialects.vendor_runs import without_vendors
from apps.gateway.errors import UNSUPPORTED_PARAMETER, GatewayError
from apps.gateway.providers.base import UpstreamRequest
from apps.gateway.providers.event_translation import DONE, GARBAGE, ChunkWriter, EventTranslator, read_object
from apps.gateway.providers.loss import NEVER_DROPPED
from apps.gateway.providers.openai import OpenAI, request_headers

_PATHS: Final = {"native": "completions", "fim": "fim/completions"}
_SERVED: Final = {"native": ("suffix", "logprobs", "best_of"), "fim": ("suffix",)}
"""What only such an upstream can do, by the form in which it serves Completions."""
_MADE: Final = frozenset((
    *OWN_FIELDS, "messages", "logprobs", "top_logprobs", "max_tokens", "stream_options", "model", "sandbox",
))  # fmt: skip
_OF_FIM: Final = {
    "suffix": "suffix", "stream": "stream", "stop": "stop", "temperature": "temperature", "top_p": "top_p",
    "min_tokens": "min_tokens", "seed": "random_seed", "random_seed": "random_seed",
}  # fmt: skip
"""What Mistral takes beside the model, the prompt and the limit -> its name there. It refuses fields that it does not
know."""
_OPENAI: Final = OpenAI()
_ONE_ANSWER: Final = {"n": 1, "best_of": 1}


def completions_request(
    asked: CompletionsRequest, model: OfferedModel, target: Target, *, request_id: str
) -> UpstreamRequest:
    """The request as it was asked. Raises GatewayError (400) for what this upstream has no words for and must not be
    left out."""
    form = served_as(target)
    asked.check_native(_SERVED[form])
    limit = asked.output_cut or model.max_output_tokens
    body: dict[str, Any] = {"model": target.upstream_model, "prompt": asked.prompt, "max_tokens": limit}
    lost = dropped_options(asked, target.upstream_model)
    told = without_vendors(asked.body, ())[0] if asked.asks_vendor else asked.body
    told = {name: value for name, value in told.items() if name not in _MADE}
    if form == "fim":
        lost += _fill(body, told, has_logprobs=asked.body.get("logprobs") is True)
    else:
        body |= told
        if asked.body.get("logprobs") is True:
            body["logprobs"] = asked.body.get("top_logprobs") or 0
        if asked.echoed_upstream:
            body["echo"] = True
        if target.is_sandbox and "sandbox" in asked.body:
            body["sandbox"] = asked.body["sandbox"]
        if asked.stream:
            body["stream_options"] = {"include_usage": True}
    return UpstreamRequest(
        url=f"{target.base_url}/{_PATHS[form]}",
        headers=request_headers(target, request_id, stream=asked.stream),
        body=written(body, size=asked.body_bytes),
        dropped=lost,
    )


def _fill(body: dict[str, Any], told: dict[str, Any], *, has_logprobs: bool) -> tuple[str, ...]:
    """Put what Mistral knows into the body; returns the names of what it does not. Raises GatewayError (400)."""
    told = {name: value for name, value in told.items() if value is not None}
    body |= {theirs: told[name] for name, theirs in _OF_FIM.items() if name in told}
    lost = [name for name in told if name not in _OF_FIM and told[name] != _ONE_ANSWER.get(name)]
    for name in lost:
        if name in NEVER_DROPPED:
            raise GatewayError(UNSUPPORTED_PARAMETER, NEVER_DROPPED[name], param=name)
    return (*lost, *(("logprobs",) if has_logprobs else ()))


def whole_answer(body: bytes, asked: CompletionsRequest) -> dict[str, Any]:
    """A text completion as a Chat Completions object; one that is that already as it is. Raises as
    `Provider.whole_answer`."""
    answer = read_json(body)
    choices = answer.get("choices") if isinstance(answer, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if _is_text(choice):
            text = choice.pop("text").removeprefix(asked.echoed_upstream)
            choice["message"] = {"role": "assistant", "content": text}
            choice["logprobs"] = _as_of_chat(choice.get("logprobs"))
    return _OPENAI.read(answer, body)


class TextCompletionsStream(EventTranslator):
    """A stream of text completions as one of Chat Completions; chunks that are those of a chat pass as they are.

    A prompt that is said again is no output: only its log probabilities go on."""

    def __init__(self, asked: CompletionsRequest) -> None:
        super().__init__()
        self._writer = ChunkWriter()
        self._echoed = asked.echoed_upstream
        self._echoes: dict[object, str] = {}
        """Choice -> what is still to be said of its prompt."""

    def _event(self, event: bytes) -> bytes:
        payload = event_data(event)
        if not payload:
            return b""
        if payload == b"[DONE]":
            return DONE
        told = read_object(payload)
        if told is None:
            return GARBAGE
        choices = told.get("choices")
        if told.get("error") or not isinstance(choices, list) or any(not _is_text(choice) for choice in choices):
            return b"data: " + payload + b"\n\n"
        said = b"".join([self._piece(choice) for choice in choices])
        usage = told.get("usage")
        return said if usage is None else said + self._writer.usage(usage)

    def _piece(self, choice: dict[str, Any]) -> bytes:
        index, reason, logprobs = choice.get("index"), choice.get("finish_reason"), _as_of_chat(choice.get("logprobs"))
        text = self._without_echo(index, choice["text"])
        if not text and not reason and logprobs is None:
            return b""
        place = index if type(index) is int else 0
        finish_reason = reason if isinstance(reason, str) else None
        return self._writer.delta({"content": text}, index=place, finish_reason=finish_reason, logprobs=logprobs)

    def _without_echo(self, index: object, text: str) -> str:
        """What of a piece is output."""
        if not self._echoed:
            return text
        left = self._echoes.get(index, self._echoed)
        if left.startswith(text):
            self._echoes[index] = left[len(text) :]
            return ""
        self._echoes[index] = ""
        return text.removeprefix(left)


def _is_text(choice: object) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("text"), str)


def _as_of_chat(told: object) -> dict[str, Any] | None:
    """Log probabilities in the form of Chat Completions. The first token of a prompt has none."""
    tokens = told.get("tokens") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(tokens, list) or not tokens:
        return None
    likely, tops = _listed(told, "token_logprobs"), _listed(told, "top_logprobs")
    content = [
        {
            "token": token,
            "logprob": likely[place] if place < len(likely) else None,
            "top_logprobs": _tops(tops[place]) if place < len(tops) else [],
        }
        for place, token in enumerate(tokens)
    ]
    return {"content": content, "refusal": None}


def _tops(told: object) -> list[dict[str, Any]]:
    return [{"token": token, "logprob": value} for token, value in told.items()] if isinstance(told, dict) else []


def _listed(told: dict[str, Any], name: str) -> list[Any]:
    found = told.get(name)
    return found if isinstance(found, list) else []
