"""`crun key brake` and `crun key resume`."""

import pytest
from click.testing import CliRunner, Result

from apps.core.errors import Conflict, NotFound
from apps.keys.issuing import create_key, revoke_key
from apps.keys.models import ApiKey
from apps.keys.pausing import pause_key
from crun.cli.keys import key
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def backend() -> ApiKey:
    return create_key(factories.project(), name="Backend").key


def run(*arguments: str) -> Result:
    return CliRunner().invoke(key, arguments)


@pytest.mark.parametrize(
    ("usd", "nanos", "words"),
    [
        ("2.50", 2_500_000_000, "pauses above 2.50 USD in 10 minutes"),
        ("0", 0, "has no brake"),
        ("none", None, "does as its plan says"),
    ],
)
def test_a_brake_is_set_and_told(backend: ApiKey, usd: str, nanos: int | None, words: str) -> None:
    result = run("brake", backend.id, "--usd", usd, "--minutes", "10")
    assert (result.exit_code, result.stdout) == (0, f"{backend.id} {words}\n")
    backend.refresh_from_db()
    assert (backend.brake_nanos, backend.brake_minutes) == (nanos, 10)


@pytest.mark.parametrize("options", [("--usd", "-1"), ("--usd", "1", "--minutes", "61"), ()])
def test_wrong_usage_is_told(backend: ApiKey, options: tuple[str, ...]) -> None:
    assert run("brake", backend.id, *options).exit_code == 2


def test_a_paused_key_is_listed_as_such_and_resumed(backend: ApiKey) -> None:
    pause_key(backend.id, reason="too fast")
    assert "\tpaused\t" in run("list", "--organization", "acme").stdout
    assert run("resume", backend.id).stdout == f"{backend.id} works\n"
    assert "\tactive\t" in run("list", "--organization", "acme").stdout


def test_what_cannot_be_resumed_is_refused(backend: ApiKey) -> None:
    revoke_key(backend)
    assert isinstance(run("resume", backend.id).exception, Conflict)
    assert isinstance(run("resume", "key_unknown").exception, NotFound)
