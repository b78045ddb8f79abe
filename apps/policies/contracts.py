"""What the data path knows of an organization's decisions: frozen values."""

import msgspec

from apps.policies.rules import Guardrail


class Policy(msgspec.Struct, frozen=True):
    """What an organization decided for the requests of one key. Who decided nothing has none of it."""

    guardrails: tuple[Guardrail, ...] = ()
    """Those that are not off, the oldest first: the organization's own and the key's."""
    data: None = None
    credentials: tuple[()] = ()
