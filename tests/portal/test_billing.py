"""The billing page: exact balance, credit in its order of use, movements; of nobody else."""

from datetime import UTC, datetime

import pytest
from django.test import Client

from apps.billing import grants
from apps.billing.models import BillingAccount, GrantSource
from apps.portal.views import billing
from tests.billing import books
from tests.portal.conftest import Cast

PAGE = "/o/acme/billing/"


def page(client: Client, query: str = "") -> str:
    response = client.get(PAGE + query)
    assert response.status_code == 200
    return response.content.decode()


def test_without_money_it_says_so(owner: Client) -> None:
    content = page(owner)
    assert "$0.000000000" in content
    assert "No credit left" in content
    assert "No movements" in content


def test_it_shows_balance_credit_and_movements(cast: Cast, owner: Client) -> None:
    books.credit(cast.organization, 9_000_000_000, source=GrantSource.PURCHASED)
    books.credit(
        cast.organization,
        2_000_000_000,
        source=GrantSource.PROMOTIONAL,
        expires_at=datetime(2099, 1, 31, 12, tzinfo=UTC),
    )
    books.credit(cast.organization, 1, source=GrantSource.PROMOTIONAL)
    grants.charge(cast.organization.id, 1, idempotency_key="used", reason="A <b>charge</b>")
    response = owner.get(PAGE)
    content = response.content.decode()
    assert [source for _, source in response.context["open_grants"]] == ["Promotional", "Promotional", "Purchased"]
    for words in (
        "$11.000000000",
        "$1.999999999",
        "2099-01-31 12:00 UTC",
        "A &lt;b&gt;charge&lt;/b&gt;",
        "−$0.000000001",
    ):
        assert words in content
    assert [row.amount_nanos for row, _ in response.context["movements"]] == [-1, 1, 2_000_000_000, 9_000_000_000]


def test_used_up_credit_is_not_on_offer_but_its_movement_stays(cast: Cast, owner: Client) -> None:
    books.credit(cast.organization, 5)
    grants.charge(cast.organization.id, 7, idempotency_key="used", reason="Used")
    content = page(owner)
    assert "No credit left" in content
    assert "−$0.000000002" in content
    assert "This is owed" in content
    assert "Test credit" in content


def test_a_credit_limit_is_told(cast: Cast, owner: Client) -> None:
    BillingAccount.objects.create(organization=cast.organization, credit_limit_nanos=3_000_000_000)
    assert "down to $3.000000000 below zero" in page(owner)


def test_movements_come_in_pages(cast: Cast, owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(billing, "MOVEMENTS_SHOWN", 2)
    for number in range(1, 6):
        books.credit(cast.organization, number)
    seen = []
    query = ""
    for _ in range(3):
        response = owner.get(PAGE + query)
        seen += [row.amount_nanos for row, _ in response.context["movements"]]
        query = f"?before={response.context['older']}"
    assert seen == [5, 4, 3, 2, 1]
    assert response.context["older"] == ""
    assert "Latest" in response.content.decode()


def test_it_shows_nothing_of_somebody_else(cast: Cast, owner: Client) -> None:
    books.credit(cast.stranger_organization, 123_456_789)
    assert "123456789" not in page(owner)


@pytest.mark.parametrize(("role", "is_there"), [("owner", True), ("finance", True), ("developer", False)])
def test_only_who_may_open_it_has_the_link(cast: Cast, client_of: object, role: str, is_there: bool) -> None:
    content = client_of(role).get("/o/acme/").content.decode()  # type: ignore[operator]  # a factory fixture
    assert (f'href="{PAGE}"' in content) == is_there
