"""The list of models: what can be called now, at which price, found by search and filter."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client
from django.utils import timezone

from apps.catalog.models import Model, PriceVersion, Provider
from tests.portal.records import offered_model

URL = "/o/acme/models/"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def swift() -> PriceVersion:
    return offered_model("swift-1", starts_at=LONG_AGO, input="0.15", output="0.6", cache_read="0.075")


def ids(client: Client, **query: str) -> list[str]:
    return [offer.id for offer in client.get(URL, query).context["offers"]]


def test_prices_are_shown_per_million_tokens(owner: Client, swift: PriceVersion) -> None:
    page = owner.get(URL).content.decode()
    for price in ("$0.15", "$0.60", "$0.075"):
        assert f">{price}<" in page
    assert "128,000" in page
    assert "16,384" in page


def test_nothing_of_the_upstream_is_shown(owner: Client, swift: PriceVersion) -> None:
    page = owner.get(URL).content.decode()
    assert "hidden-swift-1" not in page
    assert "127.0.0.1:9" not in page
    assert "Upstream house" not in page


def test_what_cannot_be_called_is_not_listed(owner: Client, swift: PriceVersion) -> None:
    offered_model("unpriced-until-tomorrow", starts_at=timezone.now() + timedelta(days=1), input="1", output="1")
    offered_model("switched-off", starts_at=LONG_AGO, input="1", output="1")
    Model.objects.filter(id="switched-off").update(enabled=False)
    assert ids(owner) == ["swift-1"]
    Provider.objects.update(enabled=False)
    assert ids(owner) == []


def test_an_announced_price_stands_below_the_one_in_force(owner: Client, swift: PriceVersion) -> None:
    starts_at = timezone.now() + timedelta(days=9)
    PriceVersion.objects.create(model=swift.model, starts_at=starts_at, input=Decimal("0.1"), output=Decimal("0.45"))
    [offer] = owner.get(URL).context["offers"]
    assert offer.price.input == 150_000_000
    assert [later.price.output for later in offer.announced] == [450_000_000]
    assert f"From {starts_at:%Y-%m-%d %H:%M} UTC" in owner.get(URL).content.decode()


def test_search_and_filters_find(owner: Client, swift: PriceVersion) -> None:
    seeing = offered_model("seeing-2", starts_at=LONG_AGO, input="1", output="2").model
    seeing.input_modalities = ["text", "image"]
    seeing.vendor = "Optics"
    seeing.save()
    assert ids(owner) == ["seeing-2", "swift-1"]
    assert ids(owner, q="SWIFT vendor") == ["swift-1"]
    assert ids(owner, vendor="Optics") == ["seeing-2"]
    assert ids(owner, modality="image") == ["seeing-2"]
    assert ids(owner, q="swift", modality="image") == []


def test_no_match_offers_the_way_back(owner: Client, swift: PriceVersion) -> None:
    assert "No model fits" in owner.get(URL, {"q": "zzz"}).content.decode()
