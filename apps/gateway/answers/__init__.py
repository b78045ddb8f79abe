"""Carrying what an upstream answers to the client, and counting on the way."""
