"""GET /generation: the receipt of one request."""

import re
from typing import Final

from apps.gateway.errors import GENERATION_NOT_FOUND, GatewayError, bad_field
from apps.gateway.receipts import public_receipt
from apps.gateway.server.answer import Answer
from apps.gateway.server.http import AsyncAPIView, json_response
from apps.gateway.server.lean_request import LeanRequest

_ID: Final = re.compile(r"(?:req_|chatcmpl-|cmpl-|msg_|resp_)([0-9a-f]{32})")


class Generation(AsyncAPIView):
    """What a request used and cost, and how that came about.

    `id` is what `x-crun-generation-id` said, or the id of the completion."""

    async def get(self, request: LeanRequest) -> Answer:
        wanted = request.query.get("id", "")
        if not wanted:
            raise bad_field("id", "Say which request: ?id= and what the header x-crun-generation-id said.")
        match = _ID.fullmatch(wanted)
        receipt = await self.runtime.receipts.find(self.grant, f"req_{match[1]}") if match else None
        if receipt is None:
            message = f"There is no ended request with the id {wanted[:60]!r}."
            raise GatewayError(GENERATION_NOT_FOUND, message, param="id")
        return json_response({"data": public_receipt(receipt)})
