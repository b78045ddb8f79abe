"""Reading texts with an organization's rules: short ones where they are, long ones in a thread."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import orjson

from apps.gateway.dialects.texts import TextPlace
from apps.gateway.errors import CONTENT_POLICY, GatewayError
from apps.policies.guarding import Guarding
from apps.policies.rules import Guardrail
from apps.policies.scanning import WHOLE_STEP, Blocked, Side

INLINE_CHARACTERS: Final = WHOLE_STEP
"""Less text than this is read on the event loop: a millisecond or two with fifty rules."""
THREADS: Final = 2
"""RE2 lets go of Python's lock, so that requests go on meanwhile."""
_SAID: Final = {"input": "The request was refused", "output": "The answer was withheld"}
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="guardrails")


async def read_texts(places: Sequence[TextPlace], guarding: Guarding, side: Side) -> bool:
    """Read all of these, and put what may go on in their places; whether any is another text now.

    Raises GatewayError (400) when a rule blocks one of them: then the places are as they were."""
    try:
        if sum(len(place.text) for place in places) <= INLINE_CHARACTERS:
            changed = _read(places, guarding, side)
        else:
            changed = await asyncio.get_running_loop().run_in_executor(_threads, _read, places, guarding, side)
    except Blocked as blocked:
        raise refusal(blocked.guardrail, side) from None
    for place, text in changed:
        place.put(text)
    return bool(changed)


def refusal(guardrail: Guardrail, side: Side) -> GatewayError:
    """What the client is told: which rule, never what it found."""
    return GatewayError(CONTENT_POLICY, f"{_SAID[side]} by a guardrail of your organization: “{guardrail.name}”.")


def _read(places: Sequence[TextPlace], guarding: Guarding, side: Side) -> list[tuple[TextPlace, str]]:
    changed = []
    for place in places:
        text = _unescaped(place.text) if place.key == "arguments" else place.text
        ready = guarding.read(text, side)
        if ready != text:
            changed.append((place, ready))
    return changed


def _unescaped(arguments: str) -> str:
    """The same JSON without letters that are written as escapes: rules read it as whoever gets it does."""
    if "\\u" not in arguments:
        return arguments
    try:
        return orjson.dumps(orjson.loads(arguments)).decode()
    except orjson.JSONDecodeError:
        return arguments
