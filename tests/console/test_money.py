"""Money in the console: credit can be granted once per form, the ledger can only be read."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.billing.grants import charge
from apps.billing.ledger import balance_nanos
from apps.billing.models import Grant, LedgerTransaction
from tests.console.cast import Rows

GRANTS = "/console/billing/grant/"
LEDGER = "/console/billing/ledgertransaction/"


def grant_fields(rows: Rows, **changes: str) -> dict[str, str]:
    fields = {
        "organization": rows.organization.pk,
        "amount_usd": "2.5",
        "source": "goodwill",
        "reason": "Sorry for the outage",
        "expires_at_0": "2099-01-31",
        "expires_at_1": "00:00:00",
        "idempotency_key": "form-1",
    }
    return {**fields, **changes}


def test_an_operator_grants_credit(console: Client, operator: User, rows: Rows) -> None:
    answer = console.post(f"{GRANTS}add/", grant_fields(rows), follow=True)
    assert "Acme has $2.500000000 more." in answer.content.decode()
    made = Grant.objects.get(source="goodwill")
    assert (made.amount_nanos, f"{made.expires_at:%Y-%m-%d %H}") == (2_500_000_000, "2099-01-31 00")
    assert (made.transaction.actor, made.transaction.reason) == (operator.email, "Sorry for the outage")
    assert balance_nanos(rows.organization.id) == 7_500_000_000


def test_a_form_sent_twice_is_one_grant(console: Client, rows: Rows) -> None:
    for _ in range(2):
        assert console.post(f"{GRANTS}add/", grant_fields(rows)).status_code == 302
    assert Grant.objects.filter(source="goodwill").count() == 1


def test_a_form_sent_again_with_something_else_is_refused(console: Client, rows: Rows) -> None:
    console.post(f"{GRANTS}add/", grant_fields(rows))
    for changes in ({"amount_usd": "3"}, {"reason": "Other"}, {"source": "manual"}, {"expires_at_0": "2098-01-01"}):
        answer = console.post(f"{GRANTS}add/", grant_fields(rows, **changes))
        assert "This form has granted credit already" in answer.content.decode()
    assert Grant.objects.filter(source="goodwill").count() == 1


def test_each_form_has_a_key_of_its_own(console: Client, rows: Rows) -> None:
    first, second = (
        console.get(f"{GRANTS}add/").context["adminform"].form["idempotency_key"].value() for _ in range(2)
    )
    assert str(first).startswith("form_")
    assert first != second


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount_usd": "0"}, "amount_usd"),
        ({"amount_usd": "-1"}, "amount_usd"),
        ({"amount_usd": "0.0000000001"}, "amount_usd"),
        ({"amount_usd": "NaN"}, "amount_usd"),
        ({"amount_usd": "٣"}, "amount_usd"),
        ({"amount_usd": "1_000"}, "amount_usd"),
        ({"amount_usd": "1e3"}, "amount_usd"),
        ({"reason": " "}, "reason"),
        ({"source": "found"}, "source"),
        ({"idempotency_key": "x" * 61}, "idempotency_key"),
        ({"expires_at_0": "2001-01-01"}, "expires_at"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field(
    console: Client, rows: Rows, changes: dict[str, str], field: str
) -> None:
    answer: Any = console.post(f"{GRANTS}add/", grant_fields(rows, **changes))
    assert list(answer.context["adminform"].form.errors) == [field]
    assert Grant.objects.for_organization(rows.organization.id).count() == 1


def test_grants_show_what_is_left(console: Client, rows: Rows) -> None:
    charge(rows.organization.id, 1, idempotency_key="used", reason="Used")
    for page in (GRANTS, f"{GRANTS}{rows.grant.pk.replace('_', '_5F')}/change/"):
        content = console.get(page).content.decode()
        assert "$4.999999999" in content
        assert "Bank transfer 17" in content


def test_the_ledger_shows_every_movement_with_its_lines(console: Client, rows: Rows) -> None:
    charge(rows.organization.id, 7_000_000_000, idempotency_key="used", reason="Much used")
    listed = console.get(LEDGER).content.decode()
    assert "-$7.000000000" in listed
    assert "Bank transfer 17" in listed
    entry = LedgerTransaction.objects.get(kind="charge")
    page = console.get(reverse("console:billing_ledgertransaction_change", args=[entry.pk])).content.decode()
    for amount in ("-$5.000000000", "-$2.000000000", "$7.000000000", rows.grant.pk):
        assert amount in page


def test_nothing_in_the_books_can_be_changed(console: Client, rows: Rows) -> None:
    for name, row in (("grant", rows.grant), ("ledgertransaction", rows.transaction)):
        for page in ("change", "delete"):
            address = reverse(f"console:billing_{name}_{page}", args=[row.pk])
            assert console.post(address, {"reason": "Other", "post": "yes"}).status_code == 403
    assert console.post(f"{LEDGER}add/", {}).status_code == 403
    rows.transaction.refresh_from_db()
    assert rows.transaction.reason == "Bank transfer 17"


def test_the_ledger_is_found_by_whole_ids(console: Client, rows: Rows) -> None:
    for term, found in ((rows.transaction.pk, 1), ("cast", 1), ("cas", 0)):
        assert len(console.get(LEDGER, {"q": term}).context["cl"].result_list) == found
