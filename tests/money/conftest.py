"""The stage of a test process: one for all tests with money in it."""

from collections.abc import Iterator

import pytest

from tests.acceptance.upstream import TruthUpstream, catalog
from tests.money import dollars
from tests.money.stage import Stage, running_stage


@pytest.fixture(scope="session")
def lasting_stage(truth: TruthUpstream, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stores and the upstream, and what processes are forked from."""
    with running_stage(tmp_path_factory.mktemp("stage"), truth, catalog(truth), migrated) as running:
        running.ask("offer", dollars.catalog(truth))
        yield running


@pytest.fixture
def stage(lasting_stage: Stage) -> Iterator[Stage]:
    """Workers that can die, with stores of their own and an upstream that tells the truth; none outlives its test."""
    yield lasting_stage
    lasting_stage.end_processes()
