"""What the endpoints have in common that ask no model, and count as a request all the same."""

from apps.gateway.admission.free_requests import take_request
from apps.gateway.admission.refusals import limit_headers
from apps.gateway.server.http import AsyncAPIView
from apps.gateway.server.lean_request import LeanRequest


class CountedView(AsyncAPIView):
    """A view that costs its caller no money and this installation some work: it counts against rates of requests."""

    async def authenticate(self, request: LeanRequest) -> None:
        """Find out who asks, and whether it may ask so often. Raises GatewayError (401, 429), or Unavailable."""
        await super().authenticate(request)
        allowance = await take_request(self.runtime.reservations, self.grant, request_id=self.request_id)
        self.limit_headers = limit_headers(allowance)
