"""Error pages: decent words, nothing internal."""

from collections.abc import Callable

import pytest
from django.test import Client

from apps.portal.views import models
from tests.portal.conftest import Cast


def test_a_missing_page_says_so(owner: Client) -> None:
    response = owner.get("/o/acme/nothing/")
    assert response.status_code == 404
    assert "There is nothing here" in response.content.decode()


def test_a_refusal_names_the_way_out(cast: Cast, client_of: Callable[[str], Client]) -> None:
    response = client_of("viewer").post("/o/acme/keys/")
    assert response.status_code == 403
    assert "Your role does not allow this" in response.content.decode()


def test_a_bug_shows_nothing_internal(owner: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_organization_id: str) -> None:
        raise RuntimeError("secret detail of the inside")

    monkeypatch.setattr(models, "current_offers", fail)
    owner.raise_request_exception = False
    response = owner.get("/o/acme/models/")
    assert response.status_code == 500
    page = response.content.decode()
    assert "Something went wrong on our side" in page
    assert "secret detail" not in page
    assert "Traceback" not in page
