"""What the operator sees of customers' own keys, which is not the keys, and the fees that are entered here."""

from datetime import timedelta
from decimal import Decimal

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.billing.models import ProviderKeyFee
from apps.billing.pricing.loading import load_book
from tests.console.cast import Rows

ADD = "console:billing_providerkeyfee_add"


def test_an_operator_sees_that_there_is_a_key_and_not_which(console: Client, rows: Rows) -> None:
    name = "console:policies_providercredential"
    for address in (reverse(f"{name}_changelist"), reverse(f"{name}_change", args=[rows.provider_key.pk])):
        shown = console.get(address).content.decode()
        assert "Brought along" in shown and "···6789" in shown
        assert "sk-own-canary" not in shown and rows.provider_key.secret not in shown
    for page in ("add", "change"):
        arguments = [] if page == "add" else [rows.provider_key.pk]
        assert console.post(reverse(f"{name}_{page}", args=arguments), {"label": "Other"}).status_code == 403


def test_a_fee_is_entered_and_in_force(console: Client, rows: Rows) -> None:
    fields = {"organization": rows.organization.pk, "percent": "2.5", "starts_at_0": "", "starts_at_1": "", "note": "x"}
    assert console.post(reverse(ADD), fields).status_code == 302
    row = ProviderKeyFee.objects.get(organization=rows.organization)
    assert (row.percent, row.created_by != "") == (Decimal("2.5"), True)
    moment = timezone.now().timestamp() + 1
    assert load_book().fee_ppm(rows.organization.pk, moment=moment) == 25_000
    assert (
        "2.5 % of the usual price" in console.get(reverse("console:billing_providerkeyfee_changelist")).content.decode()
    )


def test_a_fee_that_cannot_be_is_refused(console: Client, rows: Rows) -> None:
    past = timezone.now() - timedelta(days=1)
    for changes, said in (
        ({"percent": "101"}, "less than or equal to 100"),
        ({"percent": "-1"}, "greater than or equal to 0"),
        ({"starts_at_0": f"{past:%Y-%m-%d}", "starts_at_1": "00:00:00"}, "cannot start in the past"),
    ):
        fields = {"organization": "", "percent": "5", "starts_at_0": "", "starts_at_1": "", "note": "", **changes}
        response = console.post(reverse(ADD), fields)
        assert response.status_code == 200 and said in response.content.decode()
    assert ProviderKeyFee.objects.count() == 1
