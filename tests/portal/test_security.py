"""The content security policy holds: it is on every page, and no template needs more than it allows."""

import re
from pathlib import Path

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory

from apps.portal.security import POLICY, ContentSecurityPolicy
from tests.portal.conftest import Cast

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
OF_THE_CONSOLE = {"admin", "console", "unfold"}
OURS = sorted(path for path in TEMPLATES.rglob("*.html") if path.relative_to(TEMPLATES).parts[0] not in OF_THE_CONSOLE)


@pytest.mark.parametrize("url", ["/", "/accounts/login/", "/o/acme/", "/o/acme/keys/", "/nowhere/"])
def test_every_page_has_the_policy(url: str, cast: Cast, owner: Client) -> None:
    assert owner.get(url, follow=True)["Content-Security-Policy"] == POLICY


def test_the_policy_allows_nothing_inline() -> None:
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


def test_the_console_and_data_are_left_alone(rf: RequestFactory) -> None:
    for path, content_type in (("/console/", "text/html"), ("/api/v1/models", "application/json")):
        response = _through(rf.get(path), content_type)
        assert "Content-Security-Policy" not in response


@pytest.mark.asyncio
async def test_the_policy_is_set_on_the_event_loop_too(rf: RequestFactory) -> None:
    async def answer(_request: HttpRequest) -> HttpResponse:
        return HttpResponse("page")

    response = await ContentSecurityPolicy(answer)(rf.get("/"))  # type: ignore[misc]  # an awaitable here
    assert response["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_template_is_inline(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\sstyle=", text)
    assert not re.search(r"<style|\son[a-z]+=|javascript:|hx-on|hx-vals=.?js:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def _through(request: HttpRequest, content_type: str) -> HttpResponse:
    middleware = ContentSecurityPolicy(lambda _request: HttpResponse("x", content_type=content_type))
    response = middleware(request)
    assert isinstance(response, HttpResponse)
    return response


@pytest.mark.parametrize("path", ["/o/acme/usage/?model=%00", "/console/usage/usagerecord/?provider=%00", "/o/a%00b/"])
def test_a_nul_in_an_address_is_a_bad_request_not_a_bug(client: Client, path: str) -> None:
    assert client.get(path).status_code == 400
