"""Invoices and statements in a real browser: found from the billing page, readable, printable, also on a phone."""

import os
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import Organization
from apps.billing.grants import Credit, grant_credit
from apps.billing.invoices import printing
from apps.billing.invoices.payments import mark_paid
from apps.billing.models import GrantSource
from tests.portal import paper

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PICTURES = os.environ.get("CRUN_TEST_PICTURES", "")


@pytest.fixture
def member(page: Page, live_server: LiveServer) -> Page:
    """Somebody who has just signed up, on the billing page."""
    page.goto(f"{live_server.url}/accounts/signup/")
    page.get_by_label("Organization").fill("Analytical Engines")
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill("correct horse battery staple")
    page.get_by_role("button", name="Sign up").click()
    expect(page).to_have_url(f"{live_server.url}/o/analytical-engines/")
    page.goto(f"{live_server.url}/o/analytical-engines/billing/")
    return page


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


def test_from_the_billing_page_to_a_profile_an_invoice_and_a_statement(
    member: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(printing, "PROCESS", paper.stand_in(tmp_path, paper.NO_LIBRARY))
    expect(member.get_by_role("region", name="Invoices and statements")).to_contain_text("No invoices yet")
    picture(member, "billing-empty")
    member.get_by_role("link", name="Billing profile", exact=True).click()
    member.get_by_label("Legal name").fill("Analytical Engines Ltd")
    member.get_by_label("Country").fill("gb")
    member.get_by_label("Billing e-mails").fill("bills@example.com")
    member.get_by_role("button", name="Save").click()
    expect(member.get_by_role("status")).to_contain_text("The billing profile is saved")

    organization = Organization.objects.get()
    invoice = paper.invoice_of(organization, month=timezone.now().date().replace(day=1))
    paper.credit_note_of(invoice)
    credit = Credit(25_000_000_000, GrantSource.PURCHASED)
    grant_credit(organization.id, credit, idempotency_key="k", reason="Top-up by card")
    member.reload()
    picture(member, "list")
    member.get_by_role("link", name="INV-000001", exact=True).click()
    expect(member.get_by_role("heading", name="Invoice", level=1)).to_be_visible()
    expect(member.get_by_text("Analytical Engines Ltd")).to_be_visible()
    expect(member.locator(".links")).to_have_css("display", "flex")
    picture(member, "invoice")
    member.emulate_media(media="print")
    expect(member.locator(".links")).to_have_css("display", "none")
    member.emulate_media(media="screen")
    member.set_viewport_size({"width": 360, "height": 700})
    assert member.evaluate("document.documentElement.scrollWidth") <= 360
    picture(member, "invoice-narrow")
    member.set_viewport_size({"width": 1280, "height": 800})
    member.get_by_role("link", name="All invoices and statements").click()
    member.get_by_role("link", name=f"{timezone.now():%B %Y}", exact=True).click()
    expect(member.get_by_text("is not closed")).to_be_visible()
    expect(member.get_by_role("row", name="Closing balance")).to_contain_text("$25.000000000")
    picture(member, "statement")


def test_a_paid_invoice_with_a_credit_note(member: Page, live_server: LiveServer) -> None:
    invoice = paper.invoice_of(Organization.objects.get())
    paper.credit_note_of(invoice)
    mark_paid(invoice.id)
    member.goto(f"{live_server.url}/o/analytical-engines/billing/invoices/{invoice.id}/")
    expect(member.get_by_text("This invoice is paid: nothing is left to pay.")).to_be_visible()
    picture(member, "invoice-paid")


def test_a_table_that_is_wider_than_a_phone_shows_that_it_scrolls(member: Page, live_server: LiveServer) -> None:
    organization = Organization.objects.get()
    for number in range(3):
        credit = Credit(25_000_000_000, GrantSource.PURCHASED)
        grant_credit(organization.id, credit, idempotency_key=f"k{number}", reason="Top-up by card")
    member.set_viewport_size({"width": 390, "height": 844})
    member.reload()
    table = member.locator(".overflow-x-auto:has(> .grid-table)").first
    assert table.evaluate("each => each.scrollWidth > each.clientWidth")
    assert table.evaluate("each => getComputedStyle(each).backgroundImage.split('linear-gradient').length") == 5
    picture(member, "narrow")
