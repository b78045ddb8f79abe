"""Names the modules that register pages with the console; Django imports this one at start-up."""

from apps.console import keys, money, offer, organizations, plans, prices, providers, usage, users

__all__ = ["keys", "money", "offer", "organizations", "plans", "prices", "providers", "usage", "users"]
