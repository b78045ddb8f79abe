"""Which conversation a request belongs to, so that its turns find the prompt cache of the route that has it. Pure.

Each worker computes the same from the request alone: nothing is shared, and of its text nothing is kept."""

import hmac
from collections import OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from apps.catalog.contracts import Target
from apps.gateway.dialects.model_request import ModelRequest

LEAST_CACHED_BYTES: Final = 1_024
"""No vendor caches a prompt of fewer than 1 024 tokens, and no token is shorter than a byte: a smaller request that
names no session has no cache to find."""
MOST_HASHED_BYTES: Final = 4_096
"""Of a name, of the instructions and of the first message: enough to tell conversations apart."""
MOST_SESSIONS: Final = 10_000
"""Sessions that one worker remembers, where their route was chosen by what it had measured."""
_NAMES: Final = ("prompt_cache_key", "session_id")
"""Fields that name a session, the first one counts."""
_INSTRUCTING: Final = ("system", "developer")
_ID_BYTES: Final = 16


class Affinity:
    """Knows conversations again, by a keyed digest that nobody outside can compute."""

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        """`secret` is the same in all workers."""
        self._key = hmac.digest(secret, b"crun sessions", "sha256")

    def session_of(self, asked: ModelRequest, organization_id: str) -> bytes | None:
        """What the turns of one conversation have in common, and other organizations' never have; None for a request
        that names no session and is too small for a prompt cache.

        Without a name it is the model, the instructions and the first message of the user."""
        body = asked.body
        for field in _NAMES:
            name = body.get(field)
            if isinstance(name, str) and name:
                return self._digest(organization_id, field, name)
        messages = body.get("messages")
        if not isinstance(messages, list) or asked.body_bytes < LEAST_CACHED_BYTES:
            return None
        return self._digest(organization_id, "messages", asked.model, *_beginning(messages))

    def _digest(self, *parts: str) -> bytes:
        digest = blake2b(key=self._key, digest_size=_ID_BYTES)
        for part in parts:
            raw = part[:MOST_HASHED_BYTES].encode()[:MOST_HASHED_BYTES]
            digest.update(b"%d:" % len(raw))
            digest.update(raw)
        return digest.digest()


def draw(session: bytes, target: Target, purpose: bytes = b"") -> float:
    """A number above 0 and below 1 for this session and route: always the same one, evenly spread over sessions."""
    name = f"{target.provider}\0{target.upstream_model}".encode()
    drawn = int.from_bytes(blake2b(name, key=session, digest_size=8, person=purpose).digest())
    return ((drawn >> 11) + 0.5) / 2**53


class Sessions:
    """The routes that sessions of this worker took, the latest MOST_SESSIONS of them."""

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: OrderedDict[bytes, tuple[str, str]] = OrderedDict()

    def recall(self, session: bytes, targets: list[Target]) -> Target | None:
        """The one of these routes that the session took before."""
        route = self._routes.get(session)
        return next((target for target in targets if (target.provider, target.upstream_model) == route), None)

    def remember(self, session: bytes, target: Target) -> None:
        """The session takes this route from now on."""
        self._routes[session] = (target.provider, target.upstream_model)
        self._routes.move_to_end(session)
        if len(self._routes) > MOST_SESSIONS:
            self._routes.popitem(last=False)


def _beginning(messages: list[dict[str, Any]]) -> Iterator[str]:
    """The text of the instructions before the first message of the user, and that message's."""
    for message in messages:
        if message.get("role") in _INSTRUCTING:
            yield _text(message.get("content"))
        else:
            yield _text(message.get("content"))
            return


def _text(content: object) -> str:
    """No more than what is hashed of it. Media are told by their kind alone."""
    if isinstance(content, str):
        return content[:MOST_HASHED_BYTES]
    text, length = [], 0
    for part in content if isinstance(content, list) else ():
        said = part.get("text") if isinstance(part, dict) else None
        text.append(said[:MOST_HASHED_BYTES] if isinstance(said, str) else str(part.get("type"))[:64])
        length += len(text[-1])
        if length >= MOST_HASHED_BYTES:
            break
    return "\n".join(text)
