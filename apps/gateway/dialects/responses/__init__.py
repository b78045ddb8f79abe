"""OpenAI's Responses API as our callers speak it: requests, whole answers, streams. Pure."""
