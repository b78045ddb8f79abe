"""What a first start makes, what a later one leaves alone, and what stops a start."""

import pytest
from django.conf import settings

from apps.accounts.models import Organization
from apps.catalog.models import Provider
from apps.core.errors import ConfigurationError
from apps.keys.issuing import revoke_key
from apps.keys.models import ApiKey
from crun.seeding import seed

pytestmark = pytest.mark.django_db


def test_a_first_start_makes_an_operator_an_organization_and_a_key_and_a_second_start_nothing() -> None:
    first = seed(sandbox_url="http://127.0.0.1:9555/v1", environment={})
    assert first["first_start"] and first["operator_password"] and first["api_key"].startswith("ak_")
    assert Organization.objects.get().slug == "demo"
    assert Provider.objects.get(pk="sandbox").base_url == "http://127.0.0.1:9555/v1"
    second = seed(sandbox_url="http://127.0.0.1:9666/v1", environment={})
    assert second == {
        "first_start": False, "operator_email": first["operator_email"], "operator_password": None, "api_key": None
    }  # fmt: skip
    assert ApiKey.objects.count() == 1
    assert Provider.objects.get(pk="sandbox").base_url == "http://127.0.0.1:9666/v1"


def test_a_vendors_key_in_the_environment_is_kept_sealed() -> None:
    seed(sandbox_url=None, environment={"OPENAI_API_KEY": "sk-canary-123", "ANTHROPIC_API_KEY": ""})
    assert Provider.objects.get(pk="openai").credential
    assert "canary" not in Provider.objects.get(pk="openai").credential
    assert not Provider.objects.get(pk="anthropic").credential


def test_keys_made_with_lost_secrets_stop_the_start_until_they_are_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    seed(sandbox_url=None, environment={})
    monkeypatch.setattr(settings, "KEY_PEPPERS", {"other": b"x" * 32})
    with pytest.raises(ConfigurationError, match=r"secrets\.env"):
        seed(sandbox_url=None, environment={})
    revoke_key(ApiKey.objects.get())
    seed(sandbox_url=None, environment={})
