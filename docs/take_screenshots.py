"""Takes the pictures of the README in a throw-away installation: `make screenshots`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from crun.home import BASE_DIR
from tests.acceptance.installing import Installation, running_installation

IMAGES = Path(__file__).with_name("images")
CHROMIUM = os.environ.get("CRUN_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--font-render-hinting=none"]
SIZE: ViewportSize = {"width": 1440, "height": 960}
VENDORS = {"OPENAI_API_KEY": "sk-made-up", "ANTHROPIC_API_KEY": "sk-made-up"}  # on offer, never called
OPERATOR = {"CRUN_OPERATOR_EMAIL": "operator@example.com", "CRUN_OPERATOR_PASSWORD": "only-for-these-pictures"}
LIVE_REQUESTS = 12
FILL = "import django, runpy; django.setup(); runpy.run_module('docs.screenshot_traffic', run_name='__main__')"


def main() -> None:
    if CHROMIUM is None:
        sys.exit("No Chromium here: install it, or name it in CRUN_TEST_CHROMIUM.")
    with running_installation(**OPERATOR, **VENDORS) as installation, sync_playwright() as playwright:
        make_traffic(installation)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        IMAGES.mkdir(exist_ok=True)
        take(browser, f"{installation.url}/o/demo/usage/", name="portal", login=f"{installation.url}/accounts/login/")
        take(browser, f"{installation.url}/console/", name="console", login=f"{installation.url}/console/login/")
        browser.close()


def make_traffic(installation: Installation) -> None:
    """Some keys, three weeks of made-up history, and a few real requests through the API at the end."""
    for name in ("production", "staging", "research"):
        installation.new_key(name)
    paid = ("--amount-usd", "5000", "--source", "purchased", "--reason", "Bank transfer")
    installation.crun("credit", "grant", "--organization", "demo", *paid)  # more than the history costs
    environment = {**installation.environment, "DJANGO_SETTINGS_MODULE": "crun.settings"}
    subprocess.run([sys.executable, "-c", FILL], cwd=BASE_DIR, env=environment, check=True, timeout=120)
    body = {"model": "sandbox-echo", "messages": [{"role": "user", "content": "Hello, CRUN! " * 20}]}
    for number in range(LIVE_REQUESTS):
        curl = [
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--output",
            os.devnull,
            f"{installation.api}/chat/completions",
        ]
        headers = ["--header", f"Authorization: Bearer {installation.api_key}"]
        text = orjson.dumps({**body, "stream": number % 2 == 0}).decode()
        subprocess.run([*curl, *headers, "--data", text], check=True, timeout=30)


def take(browser: Browser, url: str, *, name: str, login: str) -> None:
    """Log in and photograph one page, in the light scheme."""
    context = browser.new_context(
        viewport=SIZE, device_scale_factor=1.25, color_scheme="light", reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(login)
    page.locator("input[name=login], input[name=username]").fill(OPERATOR["CRUN_OPERATOR_EMAIL"])
    page.locator("input[name=password]").fill(OPERATOR["CRUN_OPERATOR_PASSWORD"])
    page.locator("input[name=password]").press("Enter")
    page.wait_for_load_state("networkidle")
    page.goto(url)
    _settle(page)
    page.screenshot(path=IMAGES / f"{name}.png")
    context.close()


def _settle(page: Page) -> None:
    """Fonts and charts drawn."""
    page.wait_for_load_state("networkidle")
    page.evaluate("document.fonts.ready")
    page.wait_for_timeout(1_500)


if __name__ == "__main__":
    main()
