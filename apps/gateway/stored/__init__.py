"""Responses that are stored for their organizations, and requests that go on from them. See docs/responses-state.md."""
