"""Money for organizations that no database knows."""

from collections.abc import Sequence
from pathlib import Path

import orjson

from apps.billing.admission import INSTALL
from apps.billing.balance_cache import money_key
from apps.core.redis import single_try_client


def make_rich(organization_ids: Sequence[str], journal_root: Path) -> None:
    """In place of the real rebuild, which needs a database: a million dollars and no spend."""
    client = single_try_client()
    try:
        run_id = client.info("server")["run_id"]  # type: ignore[index]  # one function for sync and async
        nothing = orjson.dumps({"open": [], "kept": [], "examined": [], "spend": {}})
        for owner in organization_ids:
            for step in (("begin", "rich", 1_000), ("install", "rich", 10**15, 0, 900_000, nothing, 900_000)):
                client.eval(INSTALL.text, 1, money_key(owner), run_id, *step)
    finally:
        client.close()
