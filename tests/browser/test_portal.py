"""The portal in a real browser: sign up, make a key, use it up, look at usage, find models."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, expect
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import Organization
from apps.accounts.organizations import default_project
from apps.keys.issuing import create_key
from apps.keys.keyformat import is_well_formed
from apps.keys.models import ApiKey
from apps.usage.contracts import Outcome, TokenCounts
from tests.portal.records import closed, offered_model, store

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def member(page: Page, live_server: LiveServer) -> Page:
    """Somebody who has just signed up, on the overview of their organization."""
    page.goto(live_server.url)
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Organization").fill("Analytical Engines")
    page.get_by_label("Email").fill("ada@example.com")
    page.get_by_label("Password").fill("correct horse battery staple")
    page.get_by_role("button", name="Sign up").click()
    expect(page).to_have_url(f"{live_server.url}/o/analytical-engines/")
    return page


def go(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Organization").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


def test_a_key_is_shown_once_copied_and_revoked(member: Page) -> None:
    member.get_by_role("link", name="Get an API key").click()
    member.get_by_label("Name").fill("Notebook")
    member.get_by_role("button", name="Create key").click()
    secret = member.locator("#secret").inner_text()
    assert is_well_formed(secret)
    expect(member.locator("#issued-title")).to_be_focused()
    member.get_by_role("button", name="Copy key").click()
    expect(member.get_by_role("button", name="Copied")).to_be_visible()
    assert member.evaluate("navigator.clipboard.readText()") == secret
    assert secret not in str(member.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]"))

    go(member, "Overview")
    member.go_back()
    expect(member.get_by_role("heading", name="API keys")).to_be_visible()
    assert secret not in member.content()

    member.get_by_role("link", name="Revoke Notebook").click()
    dialog = member.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Revoke “Notebook”?")).to_be_visible()
    dialog.get_by_role("link", name="Keep it").click()
    expect(dialog).not_to_be_visible()
    assert ApiKey.objects.get().revoked_at is None
    member.get_by_role("link", name="Revoke Notebook").click()
    dialog.get_by_role("button", name="Revoke key").click()
    expect(member.get_by_role("status")).to_contain_text("The key “Notebook” is revoked.")
    assert ApiKey.objects.get().revoked_at is not None


def test_usage_shows_requests_and_their_receipts(member: Page) -> None:
    key = create_key(default_project(Organization.objects.get()), name="Backend").key
    price = offered_model("swift-1", starts_at=datetime(2026, 1, 1, tzinfo=UTC), input="0.15", output="0.6")
    now = timezone.now()
    store(
        closed(key, price, at=now - timedelta(minutes=number), tokens=TokenCounts(input=7, output=3))
        for number in range(60)
    )
    store([closed(key, price, at=now - timedelta(days=3), tokens=TokenCounts(), outcome=Outcome.FAILED)])

    go(member, "Usage")
    rows = member.locator("#requests tbody tr")
    expect(rows).to_have_count(50)
    expect(rows.first).to_contain_text("$0.000002850")
    assert member.evaluate("Object.keys(Chart.instances).length") == 2
    member.get_by_role("link", name="Older").click()
    expect(rows).to_have_count(11)

    member.get_by_role("radio", name="24 hours").check()
    expect(member).to_have_url(re.compile(r"range=24h"))
    expect(member.locator("#cost-title")).to_have_text("Cost by hour")
    assert member.evaluate("Object.keys(Chart.instances).length") == 2

    member.locator("#requests tbody a").first.click()
    expect(member.get_by_role("heading", name="What it cost")).to_be_visible()
    expect(member.get_by_role("row", name="Output 3 $0.60 / 1M $0.000001800", exact=True)).to_be_visible()
    member.go_back()
    expect(member.locator("#cost-title")).to_have_text("Cost by hour")


def test_models_are_found_while_typing(member: Page) -> None:
    for name in ("swift-1", "heavy-2"):
        offered_model(name, starts_at=datetime(2026, 1, 1, tzinfo=UTC), input="0.15", output="0.6")
    go(member, "Models")
    expect(member.locator("#results tbody tr")).to_have_count(2)
    member.get_by_role("searchbox").press_sequentially("heavy")
    expect(member.locator("#results tbody tr")).to_have_count(1)
    expect(member.locator("#results")).to_contain_text("heavy-2")
    expect(member).to_have_url(re.compile(r"q=heavy"))


def test_the_theme_is_switched_and_remembered(member: Page) -> None:
    before = member.evaluate("getComputedStyle(document.body).backgroundColor")
    member.get_by_role("button", name="Light or dark").click()
    expect(member.locator("html")).to_have_attribute("data-theme", "night")
    member.reload()
    expect(member.locator("html")).to_have_attribute("data-theme", "night")
    assert member.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_everything_works_without_javascript(context: BrowserContext, member: Page, live_server: LiveServer) -> None:
    assert context.browser is not None
    plain = context.browser.new_context(java_script_enabled=False, storage_state=context.storage_state()).new_page()
    plain.goto(f"{live_server.url}/o/analytical-engines/keys/")
    plain.get_by_label("Name").fill("By hand")
    plain.get_by_role("button", name="Create key").click()
    assert is_well_formed(plain.locator("#secret").inner_text())
    plain.get_by_role("link", name="Revoke By hand").click()
    plain.get_by_role("button", name="Revoke key").click()
    expect(plain.get_by_role("status")).to_contain_text("The key “By hand” is revoked.")


def test_a_phone_scrolls_tables_not_the_page(member: Page) -> None:
    create_key(default_project(Organization.objects.get()), name="A key with quite a long name")
    member.set_viewport_size({"width": 390, "height": 800})
    for path in ("", "keys/", "models/", "usage/", "settings/"):
        member.goto(re.sub(r"/o/.*", f"/o/analytical-engines/{path}", member.url))
        assert member.evaluate("document.documentElement.scrollWidth") <= 390, path
