"""Anthropic's Messages API as our callers speak it: requests, whole answers, streams, errors. Pure."""
