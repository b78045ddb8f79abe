"""Programs of the system that some tests drive, and what is said of those that are missing."""

import os
import shutil

from bench.proxy import find_nginx

MISSING = "missing on this machine: "
"""How the reason of a skip begins; the rest is the name that the end of the run shows (tests/environment.py)."""
CHROMIUM = os.environ.get("CRUN_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
NGINX = find_nginx() or ""
NODE, NPM = shutil.which("node") or "", shutil.which("npm") or ""


def missing(name: str) -> str:
    """The reason for a skip."""
    return f"{MISSING}{name}"
