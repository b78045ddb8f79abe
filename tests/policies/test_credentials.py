"""Keeping own provider keys: sealed to one row and host, announced, read with the API keys that may use them."""

import logging
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from apps.catalog.models import Provider
from apps.core.crypto import KEY_BYTES, keyed_digests, unseal
from apps.core.errors import ConfigurationError, Conflict, InvalidInput
from apps.keys.issuing import IssuedKey, create_key
from apps.keys.reading import read_grant
from apps.policies import credentials
from apps.policies.credentials import Terms
from apps.policies.models import ProviderCredential
from apps.policies.own_credentials import OwnCredential
from tests import factories
from tests.announcements import listening

pytestmark = pytest.mark.django_db
SECRET = "sk-own-canary-0123456789abcdef"
URL = "https://api.vendor.example/v1"


def provider(name: str = "vendor", **changes: Any) -> Provider:
    values: dict[str, Any] = {"name": name, "base_url": URL, "dialect": "openai"}
    return Provider.objects.create(id=name, **(values | changes))


def issued(name: str = "Acme") -> IssuedKey:
    return create_key(factories.project(name), name="Key")


def add(owner: IssuedKey, host: Provider, secret: str = SECRET, **terms: Any) -> ProviderCredential:
    row: ProviderCredential = credentials.add_credential(
        owner.key.organization_id, host, secret, Terms(**({"label": "Ours"} | terms)), actor="owner@acme.example"
    )
    return row


def granted(key: IssuedKey) -> tuple[OwnCredential, ...]:
    grant = read_grant(keyed_digests(key.secret, settings.KEY_PEPPERS))
    assert grant is not None
    return grant.policy.credentials if grant.policy else ()


def test_a_key_comes_sealed_with_the_grants_of_its_organization_alone() -> None:
    host, mine, theirs = provider(), issued(), issued("Umbrella")
    row = add(mine, host)
    [credential] = granted(mine)
    assert (credential.id, credential.provider, credential.organization_id) == (
        row.id, "vendor", mine.key.organization_id,
    )  # fmt: skip
    assert granted(theirs) == ()
    other = add(theirs, host, "sk-their-key-0123456789abcdef")
    assert [each.id for each in granted(mine)] == [row.id]
    assert [each.id for each in granted(theirs)] == [other.id]
    opened = unseal(credential.sealed, bound_to=credential.binding_for(URL), ring=settings.ENCRYPTION_KEYS)
    assert opened == SECRET
    assert SECRET not in repr(credential) and credential.sealed not in repr(credential)


@pytest.mark.parametrize(
    ("change", "base_url"),
    [
        ({}, "https://evil.example/v1"), ({}, "http://api.vendor.example/v1"), ({}, "https://api.vendor.example:8443"),
        ({"organization_id": "org_2"}, URL), ({"id": "cred_2"}, URL), ({"provider": "other"}, URL),
    ],
)  # fmt: skip
def test_it_opens_for_no_other_row_organization_or_host(change: dict[str, str], base_url: str) -> None:
    mine = issued()
    add(mine, provider())
    [credential] = granted(mine)
    values = {name: getattr(credential, name) for name in credential.__struct_fields__}
    moved = OwnCredential(**(values | change))
    with pytest.raises(ConfigurationError):
        unseal(moved.sealed, bound_to=moved.binding_for(base_url), ring=settings.ENCRYPTION_KEYS)


def test_the_ring_is_rotated_as_for_the_operators_credentials() -> None:
    mine, host = issued(), provider()
    add(mine, host)
    newer = {"t2": b"n" * KEY_BYTES, **settings.ENCRYPTION_KEYS}
    with override_settings(ENCRYPTION_KEYS=newer):
        second = add(mine, host, label="Newer")
        assert second.secret.startswith("t2$")
        for credential in granted(mine):
            assert unseal(credential.sealed, bound_to=credential.binding_for(URL), ring=newer) == SECRET


def test_a_key_may_be_for_some_api_keys_and_in_an_order() -> None:
    mine, host = issued(), provider()
    other = create_key(mine.key.project, name="Other")
    add(mine, host, label="Second", order=2)
    add(mine, host, label="First", order=1, key_ids=[other.key.id], model_ids=["b", "a"], is_exclusive=True)
    assert len(granted(mine)) == 1
    first, second = granted(other)
    assert (first.models, first.is_exclusive, second.is_exclusive) == (("a", "b"), True, False)


def test_what_is_switched_off_or_deleted_is_gone_and_rotation_keeps_the_row() -> None:
    mine, host = issued(), provider()
    row = add(mine, host)
    credentials.switch_credential(row, on=False, actor="a")
    assert granted(mine) == ()
    credentials.switch_credential(row, on=True, actor="a")
    credentials.rotate_credential(row, host, "sk-another-key-0123456789wxyz", actor="b")
    [credential] = granted(mine)
    assert unseal(credential.sealed, bound_to=credential.binding_for(URL), ring=settings.ENCRYPTION_KEYS).endswith(
        "wxyz"
    )
    row.refresh_from_db()
    assert (row.last_four, row.created_by, row.changed_by) == ("wxyz", "owner@acme.example", "b")
    credentials.delete_credential(row)
    assert granted(mine) == ()


def test_every_change_is_announced(django_capture_on_commit_callbacks: Any) -> None:
    mine, host = issued(), provider()
    owner = mine.key.organization_id
    with listening() as heard:
        with django_capture_on_commit_callbacks(execute=True):
            row = add(mine, host)
            credentials.change_credential(row, host, Terms(label="Other"), actor="a")
            credentials.rotate_credential(row, host, SECRET, actor="a")
            credentials.switch_credential(row, on=False, actor="a")
            credentials.delete_credential(row)
        assert heard() == [f"keys:{owner}"] * 5


@pytest.mark.parametrize(
    "secret", ["short", "with space-0123456789", "line\nbreak-0123456789", "ümlaut-0123456789", "x" * 4_097, ""]
)
def test_what_no_header_can_carry_is_refused_without_repeating_it(secret: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        add(issued(), provider(), secret)
    assert not secret or secret not in refused.value.message


def test_terms_that_cannot_be() -> None:
    mine, host, aws = issued(), provider(), provider("aws", dialect="bedrock", options={"region": "eu-central-1"})
    add(mine, host)
    with pytest.raises(Conflict):
        add(mine, host)
    for terms in ({"label": " "}, {"label": "x", "options": {"base_url": "https://evil.example"}}):
        with pytest.raises(InvalidInput):
            add(mine, host, **terms)
    with pytest.raises(InvalidInput, match="AWS"):
        add(mine, aws)
    with pytest.raises(InvalidInput, match="operator"):
        add(mine, aws, "AKIAABCDEFGHIJKL:" + "s" * 40, options={"region": "us-east-1"})
    row = add(mine, aws, "AKIAABCDEFGHIJKL:" + "s" * 40)
    assert row.options == {}
    assert add(mine, aws, "bearer-key-0123456789", label="B", options={"auth": "bearer"}).options == {"auth": "bearer"}


def test_of_a_short_key_nothing_is_shown() -> None:
    assert add(issued(), provider(), "12345678").last_four == ""


def test_the_plain_key_is_nowhere_in_the_database_nor_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    mine, host = issued(), provider()
    row = add(mine, host)
    credentials.change_credential(row, host, Terms(label="Other"), actor="a")
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(each)::text FROM policies_providercredential each")
        stored = "".join(text for (text,) in cursor.fetchall())
    assert "cdef" in stored
    for part in (SECRET, SECRET[:-4], SECRET[8:24]):
        assert part not in stored
        assert part not in caplog.text and not any(part in str(each.__dict__) for each in caplog.records)


def test_uses_are_noted() -> None:
    mine, host = issued(), provider()
    row = add(mine, host)
    credentials.note_uses({row.id: "provider_key_refused", "cred_gone": ""})
    row.refresh_from_db()
    assert (row.last_error, row.last_used_at is not None, row.last_error_at is not None) == (
        "provider_key_refused", True, True,
    )  # fmt: skip
    credentials.note_uses({row.id: ""})
    row.refresh_from_db()
    assert (row.last_error, row.last_error_at is not None) == ("", True)


@pytest.mark.parametrize(
    ("dialect", "operators", "options", "secret"),
    [
        ("bedrock", {"region": "eu-central-1"}, {"auth": "role"}, "AKIA0123456789ABCDEF:0123456789abcdef"),
        ("bedrock", {"region": "eu-central-1", "auth": "role"}, {}, "no-key-of-aws"),
        ("azure", {}, {"auth": "entra-client"}, "acme:only-two-parts"),
    ],
)
def test_an_organization_brings_what_it_uses(
    dialect: str, operators: dict[str, str], options: dict[str, str], secret: str
) -> None:
    host = provider(dialect=dialect, options=operators)
    with pytest.raises(InvalidInput):
        add(issued(), host, secret, options=options)
