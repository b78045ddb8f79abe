"""A chat that was made of a request in another dialect. Pure."""

from dataclasses import dataclass
from typing import Any

from apps.catalog.contracts import OfferedModel
from apps.gateway.dialects.chat import ChatRequest
from apps.gateway.dialects.plain_chat import plain_chat


@dataclass(slots=True)
class TranslatedChat(ChatRequest):
    """What all of these have in common."""

    def check_model(self, model: OfferedModel) -> None:
        """400 for a model that cannot be asked this. A bound on the output is told in the field that the provider
        knows: the caller named it in another dialect's words."""
        ChatRequest.check_model(self, model)
        if self.asked_output is not None:
            self.output_cut = min(self.asked_output, model.max_output_tokens)

    def for_openai(self, upstream_model: str) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The chat without what only some upstreams take."""
        return plain_chat(self.body, upstream_model)


def is_strict(schema: Any) -> bool:
    """Whether a schema has what OpenAI demands of one that it keeps to: closed objects, all fields required."""
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if isinstance(properties, dict):
        required = schema.get("required")
        demands_all = isinstance(required, list) and all(name in required for name in properties)
        return schema.get("additionalProperties") is False and demands_all and all(map(is_strict, properties.values()))
    is_open = schema.get("type") == "object"
    return not is_open and all(is_strict(value) for value in schema.values() if isinstance(value, dict | list))
