"""The database of a test run that all others are copies of: migrating takes seconds, copying a tenth of one."""

import fcntl
import os
from pathlib import Path

from django.db import connection

MIGRATED = "migrated"


def migrated_database() -> str:
    """Its name. Whoever asks first makes it; the other test processes wait."""
    with Path(os.environ["CRUN_HOME"]).with_name("migrated.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with connection._nodb_cursor() as cursor:  # type: ignore[attr-defined]  # the one that Django's own creation uses
            cursor.execute("SELECT FROM pg_database WHERE datname = %s", [MIGRATED])
            is_there = cursor.fetchone() is not None
        if not is_there:
            _make()
    return MIGRATED


def _make() -> None:
    """Migrate a new database, and leave nobody connected to it: PostgreSQL copies no other."""
    at = connection.settings_dict
    own, own_for_tests = at["NAME"], at["TEST"]["NAME"]
    at["TEST"]["NAME"] = MIGRATED
    try:
        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    finally:
        connection.close()
        at["NAME"], at["TEST"]["NAME"] = own, own_for_tests
