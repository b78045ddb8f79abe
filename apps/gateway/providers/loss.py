"""What a route has no words for: the fields that may be left out and named, and those that never may. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from apps.catalog.contracts import OfferedModel
from apps.gateway.errors import UNSUPPORTED_PARAMETER, GatewayError

NEVER_DROPPED: Final = {
    "audio": "This model does not answer with sound.",
    "functions": "This model takes no functions in the old form; use tools.",
    "max_completion_tokens": "The output of this model cannot be bounded.",
    "max_tokens": "The output of this model cannot be bounded.",
    "messages": "The messages cannot be passed on to this model's provider as they are.",
    "modalities": "This model answers with text only.",
    "n": "This model gives one answer to a request: n must be 1.",
    "response_format": "This model cannot be told the format of its answer.",
    "stop": "This model cannot be told where to stop.",
    "stream": "This model does not stream.",
    "tools": "This model cannot call functions.",
    "web_search_options": "This model cannot search the web through CRUN.",
}
"""Field -> what is told of it. Whoever asked for these would take the answer without them for something that it is not,
so a route that has no words for them refuses. All else may be left out, and is named: docs/providers.md."""
SAID_BY_SILENCE: Final[Mapping[str, tuple[object, ...]]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "parallel_tool_calls": (True,),
    "store": (False,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "service_tier": ("auto", "default"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"], []),
    "functions": ([],),
}
"""Values that mean what leaving the field out means."""


def refuse_unknown(body: dict[str, Any], known: frozenset[str]) -> None:
    """Raises GatewayError (400) for a field that a dialect, which knows these, has no words for and may not drop."""
    for field, message in NEVER_DROPPED.items():
        if field not in known and body.get(field) not in (None, *SAID_BY_SILENCE.get(field, ())):
            raise GatewayError(UNSUPPORTED_PARAMETER, message, param=field)


def check_loss(dropped: Iterable[str], model: OfferedModel) -> None:
    """Raises GatewayError (400) naming the first field that is lost and must not be: one of NEVER_DROPPED, or any where
    the model's policy is to refuse."""
    for name in dropped:
        if name in NEVER_DROPPED:
            raise GatewayError(UNSUPPORTED_PARAMETER, NEVER_DROPPED[name], param=name)
        if model.refuses_unsupported:
            message = f"The model {model.id} refuses what its provider has no words for, and that is so of {name[:64]}."
            raise GatewayError(UNSUPPORTED_PARAMETER, message, param=name)
