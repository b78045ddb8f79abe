"""Names the modules that register pages with the console; Django imports this one at start-up."""

from apps.console import keys, offer, organizations, prices, providers, usage, users

__all__ = ["keys", "offer", "organizations", "prices", "providers", "usage", "users"]
