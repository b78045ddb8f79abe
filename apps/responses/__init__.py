"""Answers of the Responses API that are kept for their organizations, so that a later request can go on from them."""
