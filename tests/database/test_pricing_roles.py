"""Price books and re-ratings with the rights of the process that does each part, and no more."""

import pytest

from apps.billing.ledger import balance_nanos
from apps.billing.pricing.loading import load_book
from apps.billing.pricing.preview import preview_price, yesterday
from apps.billing.pricing.rerating import finish_all, preview_rerating, start_rerating
from crun.database.privileges import ProcessRole
from tests.billing import books
from tests.billing.pricing.traffic import MODEL, billed, corrected, list_price, post, rule, window
from tests.database.test_roles import acting_as, outcome, roles

__all__ = ["roles"]
pytestmark = pytest.mark.django_db(transaction=True)


def test_the_web_asks_the_worker_corrects_and_the_gateway_reads(roles: None) -> None:
    owner = books.organization()
    price = list_price()
    post(billed(owner, price))
    with acting_as(ProcessRole.WEB):
        rule(owner, "-10")
        corrected("0.10")
        preview_price(MODEL, price, yesterday())
        assert preview_rerating(window()).total.difference_nanos == -600
        start_rerating(window(), reason="Typo", actor="test")
    with acting_as(ProcessRole.GATEWAY):
        assert load_book().rule_for(owner.id, MODEL, moment=2e9) is not None
    with acting_as(ProcessRole.WORKER):
        assert finish_all() == 1
    assert balance_nanos(owner.id) == -900


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        (ProcessRole.GATEWAY, "INSERT INTO billing_pricerule (id) VALUES ('rule_x')"),
        (ProcessRole.WORKER, "INSERT INTO billing_pricerule (id) VALUES ('rule_x')"),
        (ProcessRole.WEB, "UPDATE billing_pricerule SET percent = 0"),
        (ProcessRole.WEB, "UPDATE billing_rerating SET status = 'applied'"),
        (ProcessRole.WEB, "INSERT INTO billing_reratedusage (request_id) VALUES ('req_x')"),
        (ProcessRole.WORKER, "UPDATE billing_reratedusage SET delta_nanos = 1"),
        (ProcessRole.WORKER, "DELETE FROM billing_rerating"),
    ],
)
def test_no_process_may_do_more(roles: None, role: ProcessRole, statement: str) -> None:
    assert outcome(role, statement) == "InsufficientPrivilege"
