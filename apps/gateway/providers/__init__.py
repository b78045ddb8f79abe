"""Upstream providers: one file a dialect, and the transport they share."""

from apps.gateway.providers.anthropic import Anthropic
from apps.gateway.providers.azure import Azure
from apps.gateway.providers.base import Provider
from apps.gateway.providers.bedrock import Bedrock
from apps.gateway.providers.gemini import Gemini
from apps.gateway.providers.openai import OpenAI

PROVIDERS: dict[str, Provider] = {
    "openai": OpenAI(),
    "azure": Azure(),
    "anthropic": Anthropic(),
    "gemini": Gemini(),
    "bedrock": Bedrock(),
}
"""Dialect -> provider. A new one is a file beside this one, its test, and a line here."""
