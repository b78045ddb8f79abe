"""API keys: their format, issue, revocation and lookup."""
