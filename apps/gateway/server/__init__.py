"""The ASGI side: routes matched, views awaited, answers sent, clients that leave noticed."""
