"""docs/conformance.md says what the code does."""

from pathlib import Path

import pytest

from tests.conformance.matrix import document
from tests.gateway.conftest import Bench, bench, empty_store
from tests.upstream.conftest import patience, upstream
from tests.upstream.scripted import ScriptedUpstream

__all__ = ["bench", "empty_store", "patience", "upstream"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


@pytest.mark.asyncio
async def test_the_page_says_what_the_code_does(
    request: pytest.FixtureRequest,
    bench: Bench,
    upstream: ScriptedUpstream,
) -> None:
    written = await document(bench, upstream)
    if request.config.pluginmanager.has_plugin("docs.write_conformance"):
        PAGE.write_text(written, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == written, "run: python -m docs.write_conformance"
