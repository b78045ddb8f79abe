"""The API document: its parts as data, drf-spectacular's walk over the routes, and the bytes that are served.

The gateway itself reads `openapi.json` alone; `python -m docs.write_openapi` writes it."""
