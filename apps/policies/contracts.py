"""What the data path knows of an organization's decisions: frozen values."""

import msgspec

from apps.policies.data_rules import DataRules
from apps.policies.own_credentials import OwnCredential
from apps.policies.rules import Guardrail


class Policy(msgspec.Struct, frozen=True):
    """What an organization decided for the requests of one key. Who decided nothing has none of it."""

    guardrails: tuple[Guardrail, ...] = ()
    """Those that are not off, the oldest first: the organization's own and the key's."""
    data: DataRules | None = None
    """Where its prompts may go; None: anywhere."""
    credentials: tuple[OwnCredential, ...] = ()
    """The provider keys that requests of this key may be made with, in the order in which they are tried."""
