"""Upstream providers: one file a dialect, and the transport they share."""

from apps.gateway.providers.base import Provider
from apps.gateway.providers.openai import OpenAI

PROVIDERS: dict[str, Provider] = {"openai": OpenAI()}
"""Dialect -> provider. A new one is a file beside this one, its test, and a line here."""
