"""Whether a request may go on: its model, its price, its input. Returns frozen facts or raises GatewayError."""

import time
from dataclasses import dataclass

from apps.catalog.contracts import CatalogSnapshot, OfferedModel, Price
from apps.gateway.chat import ChatRequest, check_modalities
from apps.gateway.errors import MODEL_NOT_FOUND, UNPRICED, GatewayError
from apps.keys.contracts import KeyGrant


@dataclass(frozen=True, slots=True)
class Admission:
    """An admitted request: who asks, for what, at which price."""

    request_id: str
    grant: KeyGrant
    chat: ChatRequest
    model: OfferedModel
    price: Price

    @property
    def token_bound(self) -> int:
        """More tokens than this can neither go in nor come out: a larger usage is an upstream's mistake.

        Twice the context, because operators' figures and vendors' counting differ a little."""
        return 2 * max(self.model.context_length, self.model.max_output_tokens * self.chat.choices)


def admit(grant: KeyGrant, chat: ChatRequest, snapshot: CatalogSnapshot, *, request_id: str) -> Admission:
    """Check model, modalities and price. The price version in force now is the one that is billed."""
    model = snapshot.models.get(chat.model)
    if model is None:
        message = f"The model '{chat.model}' does not exist or you do not have access to it."
        raise GatewayError(MODEL_NOT_FOUND, message, param="model")
    check_modalities(chat, model)
    price = model.price_at(time.time())
    if price is None:
        raise GatewayError(UNPRICED, f"The model '{model.id}' has no price yet, so it cannot be used.", param="model")
    return Admission(request_id, grant, chat, model, price)
