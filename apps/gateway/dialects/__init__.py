"""Requests and streams as clients write them: parsed, checked and rendered. Pure, no I/O."""
