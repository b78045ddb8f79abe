"""Models and their routes in the console."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from apps.catalog.models import Model, Route
from apps.usage.models import UsageRollup
from tests.console.cast import Rows, add_price

LIST = "/console/catalog/model/"
CHANGE = "/console/catalog/model/acme_2Fsmall-1/change/"


def fields(rows: Rows, **changed: Any) -> dict[str, Any]:
    route = Route.objects.get()
    sent = {
        "name": "Small",
        "vendor": "Acme",
        "description": "",
        "context_length": "8000",
        "max_output_tokens": "1000",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "tokenizer": "",
        "image_tokens": "48169",
        "unsupported_parameters": "refuse",
        "enabled": "on",
        "routes-TOTAL_FORMS": "1",
        "routes-INITIAL_FORMS": "1",
        "routes-0-id": str(route.pk),
        "routes-0-model": rows.model.pk,
        "routes-0-provider": rows.provider.pk,
        "routes-0-upstream_model": "small-upstream-2",
        "routes-0-weight": "5",
        "routes-0-enabled": "on",
        "routes-0-quantization": "fp8",
        "routes-0-canary_percent": "7",
        "routes-0-shadow_percent": "0",
        "prices-TOTAL_FORMS": "1",
        "prices-INITIAL_FORMS": "1",
        "prices-0-id": str(rows.price.pk),
        "prices-0-input": "0.01",
    }
    return {**sent, **changed}


def test_model_and_routes_are_saved_together_and_prices_are_not(console: Client, rows: Rows) -> None:
    answer = console.post(CHANGE, fields(rows, id="stolen"))
    assert answer.status_code == 302
    model = Model.objects.get()
    assert (model.pk, model.input_modalities) == ("acme/small-1", ["text", "image"])
    assert model.image_tokens == 48_169
    assert model.unsupported_parameters == "refuse"
    assert (Route.objects.get().upstream_model, Route.objects.get().weight) == ("small-upstream-2", 5)
    rows.price.refresh_from_db()
    assert rows.price.input == Decimal("0.15")


@pytest.mark.parametrize(
    ("field", "value"),
    [("input_modalities", ["smell"]), ("input_modalities", []), ("context_length", "0"), ("image_tokens", "0")],
)
def test_impossible_models_are_refused(console: Client, rows: Rows, field: str, value: Any) -> None:
    answer = console.post(CHANGE, fields(rows, **{field: value}))
    assert list(answer.context["adminform"].form.errors) == [field]


def test_the_list_shows_the_price_in_force(console: Client, rows: Rows) -> None:
    add_price(rows.model, input=Decimal("0.039"), output=Decimal(12), starts_at=timezone.now() - timedelta(hours=1))
    add_price(rows.model, input=Decimal(99), starts_at=timezone.now() + timedelta(hours=1))
    Model.objects.create(id="free", name="Free", vendor="Acme", context_length=1, max_output_tokens=1)
    page = console.get(LIST).content.decode()
    assert "$0.039 / $12.00" in page
    assert "$99" not in page
    assert "no price" in page


def test_a_model_is_switched_off_in_the_list_and_gateways_are_told(
    console: Client, rows: Rows, announcements: Any, django_capture_on_commit_callbacks: Any
) -> None:
    switch_off = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": rows.model.pk, "_save": "Save"}
    with django_capture_on_commit_callbacks(execute=True):
        assert console.post(LIST, switch_off).status_code == 302
    assert not Model.objects.get().enabled
    assert announcements() == ["catalog"]


def test_the_list_needs_the_same_number_of_queries_for_any_number_of_models(
    console: Client, rows: Rows, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        model = Model.objects.create(
            id=f"model-{number}", name="M", vendor="Acme", context_length=1, max_output_tokens=1
        )
        add_price(model)
    with django_assert_max_num_queries(10):
        console.get(LIST)


def test_only_a_model_that_never_had_a_price_can_be_deleted(console: Client, rows: Rows) -> None:
    assert console.post("/console/catalog/model/acme_2Fsmall-1/delete/", {"post": "yes"}).status_code == 403
    Model.objects.create(id="free", name="Free", vendor="Acme", context_length=1, max_output_tokens=1)
    assert console.post("/console/catalog/model/free/delete/", {"post": "yes"}).status_code == 302
    assert [model.pk for model in Model.objects.all()] == ["acme/small-1"]


def test_a_route_shows_how_much_of_its_input_was_cached(console: Client, rows: Rows) -> None:
    assert b"no input" in console.get(CHANGE).content
    for hours, tokens, cached in ((0, 300, 100), (2, 0, 100), (30, 9_000, 0)):
        UsageRollup.objects.create(
            hour=(timezone.now() - timedelta(hours=hours)).replace(minute=0, second=0, microsecond=0),
            organization_id="org_x", project_id="p", key_id="k", model=rows.model.pk, provider=rows.provider.pk,
            requests=1, failed_requests=0, estimated_requests=0, input_tokens=tokens, cache_read_tokens=cached,
            cache_write_tokens=0, output_tokens=1, reasoning_tokens=0, cost_nanos=1,
        )  # fmt: skip
    assert "40 %" in console.get(CHANGE).content.decode()
