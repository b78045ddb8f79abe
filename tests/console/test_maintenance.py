"""Windows of maintenance in the console: set for a provider or a route, seen in the list, refused when half."""

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from apps.catalog.models import Provider, Route
from tests.console import test_offer, test_providers
from tests.console.cast import Rows

WINDOW = {
    "maintenance_from_0": "2100-01-02",
    "maintenance_from_1": "22:00:00",
    "maintenance_until_0": "2100-01-03",
    "maintenance_until_1": "02:00:00",
    "maintenance_note": "New disks",
}
START = datetime(2100, 1, 2, 22, tzinfo=UTC)


def test_a_window_of_a_provider_is_set_and_ended(console: Client, rows: Rows) -> None:
    provider = rows.provider
    sent = test_providers.fields(provider)
    assert console.post(test_providers.CHANGE, sent | WINDOW).status_code == 302
    stored = Provider.objects.get(pk=provider.pk)
    assert (stored.maintenance_from, stored.maintenance_note) == (START, "New disks")
    assert stored.maintenance_until == START + timedelta(hours=4)
    assert b"local, maintenance from 2100-01-02 22:00" in console.get("/console/catalog/provider/").content
    assert console.post(test_providers.CHANGE, sent).status_code == 302
    assert Provider.objects.get(pk=provider.pk).maintenance_from is None


def test_a_running_window_is_seen_in_the_list(console: Client, rows: Rows) -> None:
    now = timezone.now()
    rows.provider.maintenance_from, rows.provider.maintenance_until = now - timedelta(hours=1), now + timedelta(hours=1)
    rows.provider.save()
    assert b"local, in maintenance until " in console.get("/console/catalog/provider/").content


@pytest.mark.parametrize("missing", ["maintenance_from", "maintenance_until"])
def test_half_a_window_is_refused(console: Client, rows: Rows, missing: str) -> None:
    half = {name: value for name, value in WINDOW.items() if not name.startswith(missing)}
    answer = console.post(test_providers.CHANGE, test_providers.fields(rows.provider) | half)
    assert answer.status_code == 200 and b"both a beginning and a later end" in answer.content
    assert Provider.objects.get(pk=rows.provider.pk).maintenance_from is None


def test_a_window_of_a_route_and_a_limit_of_a_model_are_set(console: Client, rows: Rows) -> None:
    window = {f"routes-0-{name}": value for name, value in WINDOW.items()}
    sent = test_offer.fields(rows, first_byte_timeout_s="180", **window)
    assert console.post(test_offer.CHANGE, sent).status_code == 302
    route = Route.objects.get()
    assert (route.maintenance_from, route.model.first_byte_timeout_s) == (START, 180)
