"""Whatever beat asks for, a worker knows: a room that is not looked into would leave its work undone, silently."""

import subprocess
import sys

from django.conf import settings

KNOWN = """
import django
from crun.celery import app
django.setup()
app.loader.import_default_modules()
print(*app.tasks)
"""


def test_a_fresh_worker_knows_every_scheduled_task() -> None:
    known = subprocess.run([sys.executable, "-c", KNOWN], capture_output=True, text=True, check=True, timeout=60)
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert scheduled - set(known.stdout.split()) == set()
