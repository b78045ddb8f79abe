"""The console in a real browser: log in, read the overview, change a price, make a key, test a provider."""

import os
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django.live_server_helper import LiveServer

from apps.accounts.models import User
from apps.accounts.organizations import create_organization, default_project
from apps.catalog.models import Model, PriceVersion, Provider
from apps.keys.issuing import create_key
from apps.keys.keyformat import is_well_formed
from tests.console.cast import add_price, add_rollup
from tests.console.upstream import ListingServer, running_listing

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PICTURES = os.environ.get("CRUN_TEST_PICTURES", "")
PASSWORD = "correct horse battery staple"


@pytest.fixture
def model() -> Model:
    """A model with a price."""
    model = Model.objects.create(
        id="acme/small-1", name="Small", vendor="Acme", context_length=8000, max_output_tokens=1000
    )
    add_price(model, starts_at=timezone.now() - timedelta(days=2))
    return model


@pytest.fixture
def operator(page: Page, live_server: LiveServer) -> Page:
    """An operator who has just logged in, on the overview."""
    User.objects.create_user("operator@example.com", PASSWORD, is_staff=True)
    page.goto(f"{live_server.url}/console/")
    page.get_by_label("Email").fill("operator@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_title("Overview | CRUN console")
    return page


@pytest.fixture
def listing() -> Iterator[ListingServer]:
    """A provider that answers."""
    with running_listing() as server:
        yield server


def go(page: Page, name: str) -> None:
    page.locator("#nav-sidebar").get_by_role("link", name=name).click()


def test_the_overview_draws_what_was_used(operator: Page) -> None:
    key = create_key(default_project(create_organization("Blue Heron")), name="Backend").key
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    add_rollup(key, hour=hour, requests=1234, cost_nanos=5_670_000_000, model="large-1")
    operator.reload()
    expect(operator.locator("[data-section=figures]")).to_contain_text("1,234")
    expect(operator.locator("[data-section=models]")).to_contain_text("large-1")
    expect(operator.get_by_role("link", name="Blue Heron")).to_be_visible()
    drawn = "Chart.getChart(document.querySelectorAll('canvas.chart')[1]).data.datasets[0].data.at(-1)"
    assert operator.evaluate(drawn) == 5.67


def test_a_price_is_changed_by_a_new_version(operator: Page, model: Model) -> None:
    go(operator, "Prices")
    operator.get_by_role("link", name=model.pk).first.click()
    operator.get_by_role("link", name="New version from this one").click()
    expect(operator.locator("#id_output")).to_have_value("0.60")
    operator.locator("#id_input").fill("0.12")
    operator.get_by_label("Note").fill("Spring")
    with operator.context.expect_page() as opened:
        operator.get_by_role("button", name="Preview on yesterday's traffic").click()
    expect(opened.value.get_by_text("No live request of this model was billed")).to_be_visible()
    opened.value.close()
    assert PriceVersion.objects.count() == 1
    operator.get_by_role("button", name="Save", exact=True).click()
    expect(operator.get_by_text("is in force now")).to_be_visible()
    expect(operator.get_by_role("row").filter(has_text="$0.12")).to_contain_text("In force")
    expect(operator.get_by_role("row").filter(has_text="$0.15")).to_contain_text("Past")
    newest = PriceVersion.objects.order_by("-starts_at")[0]
    assert (newest.input, newest.note, newest.created_by) == (Decimal("0.12"), "Spring", "operator@example.com")


def test_a_key_is_shown_once(operator: Page) -> None:
    create_organization("Blue Heron")
    go(operator, "Organizations")
    operator.get_by_role("link", name="Blue Heron").first.click()
    operator.get_by_role("link", name="Create API key").click()
    operator.get_by_label("Name").fill("Backend")
    operator.get_by_role("button", name="Save", exact=True).click()
    secret = operator.locator("#secret").inner_text()
    assert is_well_formed(secret)
    operator.get_by_role("button", name="Copy").click()
    expect(operator.get_by_role("button", name="Copied")).to_be_visible()
    assert operator.evaluate("navigator.clipboard.readText()") == secret
    operator.get_by_role("link", name="To all keys").click()
    expect(operator.get_by_role("row").filter(has_text="Backend")).to_contain_text("Active")
    assert secret not in operator.content()


def test_a_provider_is_tested_in_place(operator: Page, listing: ListingServer) -> None:
    Provider.objects.create(id="local", name="Local", base_url=listing.base_url("200"))
    go(operator, "Providers")
    operator.get_by_role("link", name="Local").first.click()
    operator.get_by_role("button", name="Test connection").click()
    expect(operator.locator("#connection-report")).to_contain_text("Connected: 2 models listed")


RUNS_OUT = """() => {
    const seen = document.querySelectorAll('main input, main select, main .select2, main p, main .help, main label');
    const wide = [...seen].map(each => [each, each.getBoundingClientRect(), each.closest('.border, fieldset')])
        .filter(([, box, card]) => box.width > 1 && card && box.right > card.getBoundingClientRect().right + 1);
    return wide.map(([each]) => each.outerHTML.slice(0, 120));
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("form", ["billing/pricerule", "billing/rerating", "catalog/priceversion"])
def test_the_forms_of_prices_stay_within_their_cards(
    operator: Page, live_server: LiveServer, form: str, width: int
) -> None:
    operator.set_viewport_size({"width": width, "height": 900})
    operator.goto(f"{live_server.url}/console/{form}/add/")
    for closed in operator.locator("details:not([open]) > summary").all():
        closed.click()
    if PICTURES:
        operator.screenshot(path=f"{PICTURES}/{form.rpartition('/')[2]}-{width}.png", full_page=True)
    assert operator.evaluate(RUNS_OUT) == []
    assert operator.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
