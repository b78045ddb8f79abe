"""Answers of the response cache in the portal: hits and savings, on usage pages and on the receipt."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from msgspec.structs import replace

from apps.billing.pricing.book import at_share
from apps.billing.rating import cost_nanos
from apps.catalog.models import PriceVersion
from apps.usage.contracts import RESPONSE_CACHE, CacheHit, RequestClosed, TokenCounts
from tests.portal.conftest import Cast
from tests.portal.records import closed, store

URL = "/o/acme/usage/"
TOKENS = TokenCounts(input=1_000, output=100)


def hit(cast: Cast, version: PriceVersion, share: int) -> RequestClosed:
    """A request that the cache answered for a share of the price."""
    end = closed(cast.key, version, at=timezone.now(), tokens=TOKENS)
    price = at_share(end.opened.price, share)
    opened = replace(
        end.opened, provider=RESPONSE_CACHE, upstream_model="", price=price, cache_hit=CacheHit(share, end.cost_nanos)
    )
    return replace(end, opened=opened, cost_nanos=cost_nanos(TOKENS, price))


@pytest.mark.parametrize("share", [0, 250_000])
def test_hits_and_savings_are_shown_exactly(owner: Client, cast: Cast, request_id: str, share: int) -> None:
    version = PriceVersion.objects.get()
    end = hit(cast, version, share)
    before = _figures(owner)
    store([end])
    after = _figures(owner)
    assert (after["cached_requests"], before["cached_requests"]) == (1, 0)
    assert after["saved_nanos"] == end.saved_nanos > 0
    assert after["cost_nanos"] == before["cost_nanos"] + end.cost_nanos
    page = owner.get(URL).content.decode()
    saved = f"$0.{end.saved_nanos:09d}"
    assert f"{saved} saved by the response cache" in page and "1 from the response cache" in page
    assert page.count(">Cache</span>") == 1
    detail = owner.get(f"{URL}{end.opened.request_id}/").content.decode()
    assert f"Answer from the cache: {share // 10_000} % of the price" in detail
    assert "no provider was asked" in detail and saved in detail
    assert "From the cache" not in owner.get(f"{URL}{request_id}/").content.decode()


def _figures(owner: Client) -> dict[str, Any]:
    total = owner.get(URL).context["total"]
    return {name: getattr(total, name) for name in ("cached_requests", "saved_nanos", "cost_nanos")}
