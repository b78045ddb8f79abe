"""Fixtures that several rooms share: one running installation, and the upstream that tells the truth."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import hypothesis
import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test import TransactionTestCase, override_settings
from pytest_django import DjangoDbBlocker

from apps.core.ids import new_id
from apps.core.redis import sync_client
from tests.acceptance.installing import Installation, running_installation
from tests.acceptance.upstream import TruthUpstream, catalog, running_upstream
from tests.databases import migrated_database
from tests.emptying import empty_database
from tests.environment import INSTALLATION

hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")  # a machine that has more to do is no defect

GATEWAY_LIMITS = {
    "CRUN_UPSTREAM_FIRST_BYTE_TIMEOUT_S": "4",
    "CRUN_UPSTREAM_IDLE_TIMEOUT_S": "3",
    "CRUN_UPSTREAM_TOTAL_TIMEOUT_S": "9",
    "CRUN_CLIENT_WRITE_TIMEOUT_S": "3",
}
"""Short enough for tests of upstreams and clients that stall, long enough for a busy machine."""


@pytest.fixture(scope="session")
def migrated(django_test_environment: None, django_db_blocker: DjangoDbBlocker) -> str:
    """The name of a database with all tables and nobody in it, to be copied."""
    with django_db_blocker.unblock():
        return migrated_database()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None, migrated: str) -> None:
    """The test database is a copy: there is nothing left to migrate."""
    connection.settings_dict["TEST"]["TEMPLATE"] = migrated


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """pytest-django's test database, which tests that commit leave empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty_database)
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """Hashes that cost nothing. With Argon2 each login takes a tenth of a second, and a test of it says so itself."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="module")
def module_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[DjangoDbBlocker]:
    """Rows for all tests of a module: make them in `with module_db.unblock():`, and give copies to the tests.

    Each test is rolled back to them, and they are after the last. Not for modules with tests that commit."""
    around = transaction.atomic()
    around._from_testcase = True  # as in Django's own TestCase: a durable transaction may begin within
    with django_db_blocker.unblock():
        around.__enter__()
    yield django_db_blocker
    with django_db_blocker.unblock():
        transaction.set_rollback(True)
        around.__exit__(None, None, None)


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TruthUpstream]:
    """An upstream in its own process whose log is the oracle."""
    with running_upstream(tmp_path_factory.mktemp("truth")) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest, truth: TruthUpstream) -> Iterator[Installation]:
    """A whole `crun up` with two ASGI workers, the upstream `truth` in its catalog."""
    if sys.platform != "linux":
        pytest.skip("these tests look at processes in /proc, which only Linux has")
    with ExitStack() as end:
        running = end.enter_context(running_installation(WORKERS="2", **GATEWAY_LIMITS))
        request.config.stash[INSTALLATION] = end
        running.import_catalog(catalog(truth))
        yield running


@pytest.fixture
def mark(truth: TruthUpstream) -> tuple[str, int]:
    """This moment as a request id and as a number of the truth log: what the test causes comes after both."""
    return new_id("req"), truth.last_number()


@pytest.fixture
def own_rate_limits() -> Iterator[None]:
    """Failed logins of one test must not count in another. (Clearing the cache would empty all of Redis.)"""
    caches = {"default": {**django_settings.CACHES["default"], "KEY_PREFIX": new_id("test")}}
    with override_settings(CACHES=caches):
        yield


@pytest.fixture
def empty_store() -> Iterator[None]:
    """No money of organizations that other tests made and rolled back, for proofs that look at all of Redis."""
    client = sync_client()
    client.flushdb()
    yield
    client.close()
