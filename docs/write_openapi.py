"""Write the API document anew: `python -m docs.write_openapi`, after routes or their shapes have changed."""

import os
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "crun.settings")
django.setup()

from apps.gateway.openapi.document import FILE, document_text  # noqa: E402 - Django must be set up before its apps are imported

if __name__ == "__main__":
    text = document_text()
    for path in (FILE, Path(__file__).with_name("openapi.json")):
        path.write_text(text, encoding="utf-8")
