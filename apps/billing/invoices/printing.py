"""PDFs, made by pdf_process.py in another process: bounded in time, memory, size and number at once."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from threading import BoundedSemaphore
from typing import Final

from apps.core.errors import ConfigurationError, InvalidInput, Unavailable

LIBRARY_MISSING: Final = 3
"""As pdf_process.py ends without its library; that file cannot be imported where the library is missing."""
PROCESS: Final = Path(__file__).with_name("pdf_process.py")
TIMEOUT_S: Final = 25.0
WAIT_S: Final = 10.0
AT_ONCE: Final = 2
"""Of one process of ours: more would only make each slower."""
MAX_HTML_CHARACTERS: Final = 4_000_000
"""About 15 000 lines, which take some 20 seconds."""
MAX_PDF_BYTES: Final = 30 << 20
MISSING: Final = (
    "PDFs cannot be made on this server: the Pango library is missing. The page itself can be printed or saved"
    " by the browser."
)
PASSED_ON: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "FONTCONFIG_FILE", "FONTCONFIG_PATH", "XDG_CACHE_HOME", "HOME")
"""What the process gets of our environment: no secret is among it."""

log = logging.getLogger(__name__)
_places = BoundedSemaphore(AT_ONCE)


def pdf(html: str, css: str) -> bytes:
    """The document as PDF. Takes half a second and more: never call it on an event loop.

    Raises InvalidInput for a document that is too long, ConfigurationError when the system lacks the library, and
    Unavailable when it took too long, failed, or too many are being made."""
    if len(html) > MAX_HTML_CHARACTERS:
        raise InvalidInput("The document is too long for a PDF. The page and the CSV have all of it.")
    if not _places.acquire(timeout=WAIT_S):
        raise Unavailable("Too many PDFs are being made just now. Try again in a moment.")
    try:
        done = _run(json.dumps({"html": html, "css": css}).encode())
    finally:
        _places.release()
    if done.returncode == LIBRARY_MISSING:
        raise ConfigurationError(MISSING)
    if done.returncode != 0 or not done.stdout.startswith(b"%PDF-") or len(done.stdout) > MAX_PDF_BYTES:
        log.error(
            "a PDF could not be made",
            extra={"code": done.returncode, "said": done.stderr[-500:].decode("utf-8", "replace")},
        )
        raise Unavailable("The PDF could not be made. The page itself can be printed.")
    return done.stdout


def check() -> None:
    """Make the smallest PDF; raises as `pdf` does. For `crun doctor`."""
    pdf("<!DOCTYPE html><title>Test</title><p>Test", "p { color: black }")


def _run(asked: bytes) -> "subprocess.CompletedProcess[bytes]":
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        # -I: neither the current folder nor PYTHONPATH decides what is imported there.
        return subprocess.run(
            [sys.executable, "-I", str(PROCESS)],
            input=asked,
            capture_output=True,
            timeout=TIMEOUT_S,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable("The PDF took too long. The page itself can be printed.") from None
