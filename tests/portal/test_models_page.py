"""The list of models: what can be called now, at which price, found by search and filter."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.test import Client
from django.utils import timezone

from apps.billing.models import PriceRule
from apps.catalog.models import Model, PriceVersion, Provider
from tests.portal.conftest import Cast
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


def test_media_flat_parts_and_conditions_stand_below_the_price(owner: Client, swift: PriceVersion) -> None:
    PriceVersion.objects.create(
        model=swift.model,
        starts_at=LONG_AGO + timedelta(days=1),
        input=Decimal("0.15"),
        output=Decimal("0.6"),
        audio_input=Decimal(32),
        image_output=Decimal("0.6"),
        per_image=Decimal("0.002"),
        variants=[
            {"min_input_tokens": 200_001, "input": "0.3"},
            {"service_tier": "flex", "audio_input": "16", "per_image": "0"},
        ],
    )
    [offer] = owner.get(URL).context["offers"]
    assert [(extra.label, extra.nanos) for extra in offer.extras] == [
        ("audio input", 32_000_000_000),
        ("each image sent", 2_000_000),
    ]
    assert [[(extra.label, extra.nanos) for extra in tier.extras] for tier in offer.tiers] == [
        [],
        [("audio input", 16_000_000_000), ("each image sent", 0)],
    ]
    page = " ".join(owner.get(URL).content.decode().split())
    assert "audio input <span" in page and ">$32.00</span>" in page and ">$0.002</span>" in page
    assert ">from 200,001 input tokens</span>" in page and ">$0.30</td>" in page
    assert '>flex</span> <span class="muted">audio input</span> $16.00' in page


def test_an_organization_sees_its_own_price_beside_the_list(owner: Client, cast: Cast, swift: PriceVersion) -> None:
    now = timezone.now()
    PriceRule.objects.create(organization=cast.organization, percent=-10, starts_at=LONG_AGO)
    PriceRule.objects.create(
        organization=cast.organization, model=swift.model, percent=20, starts_at=now + timedelta(days=3)
    )
    [offer] = owner.get(URL).context["offers"]
    assert (offer.price.input, offer.rule) == (135_000_000, "10 % discount")
    assert offer.listed is not None and offer.listed.input == 150_000_000
    assert [(each.price.input, each.rule) for each in offer.announced] == [(180_000_000, "20 % markup")]
    page = owner.get(URL).content.decode()
    assert "Your price: 10 % discount" in page
    assert "<s>$0.15</s>" in page
    assert "your price: 20 % markup" in page


def test_nobody_sees_the_price_of_another_organization(owner: Client, cast: Cast, swift: PriceVersion) -> None:
    PriceRule.objects.create(organization=cast.stranger_organization, percent=-50, starts_at=LONG_AGO)
    [offer] = owner.get(URL).context["offers"]
    assert (offer.price.input, offer.rule, offer.listed) == (150_000_000, "", None)
