"""GET /credits and GET /client/account/balance: what the organization has to spend, now."""

from apps.gateway.admission.refusals import limit_headers
from apps.gateway.admission.standing import standing_of
from apps.gateway.receipts import usd_number
from apps.gateway.server.answer import Answer
from apps.gateway.server.client_envelope import ClientView, client_success
from apps.gateway.server.http import AsyncAPIView, json_response
from apps.gateway.server.lean_request import LeanRequest


class Credits(AsyncAPIView):
    """OpenRouter's two sums, of which the balance is the difference, and where it stands. All in USD.

    Usage counts from the moment a request ends. A sandbox key spends no money and sees zeros."""

    async def get(self, request: LeanRequest) -> Answer:
        standing = await standing_of(self.runtime, self.grant)
        self.limit_headers = limit_headers(standing.allowance)
        content = {
            "total_credits": usd_number(standing.credited_nanos),
            "total_usage": usd_number(standing.used_nanos),
            "balance": usd_number(standing.balance_nanos),
            "held": usd_number(standing.held_nanos),
            "credit_limit": usd_number(standing.credit_limit_nanos),
            "available": usd_number(standing.available_nanos),
            "is_sandbox": self.grant.sandbox,
        }
        return json_response({"data": content})


class AccountBalance(ClientView):
    """The balance in USD in CRUN's own envelope."""

    async def get(self, request: LeanRequest) -> Answer:
        standing = await standing_of(self.runtime, self.grant)
        return client_success({"balance": usd_number(standing.balance_nanos)})
