"""PDFs: real ones, of bounded time and number, that fetch nothing; and clear words where the library is missing."""

import re
import socket
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from threading import BoundedSemaphore, Thread

import pytest

from apps.billing.invoices import printing
from apps.billing.invoices.issuing import issue
from apps.billing.invoices.rendering import html_of, pdf_of
from apps.billing.invoices.statements import Statement, statement
from apps.billing.models import Invoice
from apps.core.errors import ConfigurationError, InvalidInput, Unavailable
from tests.billing import books
from tests.billing.invoices import documents
from tests.programs import missing


def has_library() -> bool:
    try:
        printing.check()
    except ConfigurationError:
        return False
    return True


HAS_LIBRARY = has_library()
needs_library = pytest.mark.skipif(not HAS_LIBRARY, reason=missing("the Pango library"))


def unpacked(content: bytes) -> bytes:
    """All streams of a PDF, uncompressed where they can be."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
        with suppress(zlib.error):
            found.append(zlib.decompress(stream))
    return b"".join(found)


def document_title(document: Invoice | Statement) -> bytes:
    words = f"Invoice {document.number}" if isinstance(document, Invoice) else f"Statement {document.month}"
    return words.encode()


@needs_library
@pytest.mark.django_db
def test_each_document_is_a_pdf() -> None:
    documents.seller()
    owner = books.organization()
    invoice = issue(documents.draft(owner))
    month = documents.this_month()
    for document in (invoice, statement(owner.id, month, now=documents.after(month))):
        content = pdf_of(document)
        assert content.startswith(b"%PDF-")
        assert content.rstrip().endswith(b"%%EOF")
        inside = unpacked(content)
        assert document_title(document) in inside
        assert b"/FontFile" in inside or b"/FontDescriptor" in inside  # its letters come with it


@needs_library
def test_no_address_is_ever_fetched() -> None:
    """A listener that would notice, a file, and inline data: the PDF comes without them."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        def listen() -> None:
            deadline = time.monotonic() + 8
            while time.monotonic() < deadline and not done:
                try:
                    asked.append(server.accept()[0].recv(100))
                except TimeoutError:
                    continue

        done: list[bool] = []
        thread = Thread(target=listen)
        thread.start()
        html = (
            f"<link rel=stylesheet href='http://127.0.0.1:{port}/a.css'><img src='http://127.0.0.1:{port}/a.png'>"
            "<img src='file:///etc/passwd'><object data='file:///etc/passwd'></object><a rel=attachment"
            " href='file:///etc/passwd'>x</a><p>Text"
        )
        css = f"@import 'http://127.0.0.1:{port}/b.css'; p {{ background: url(http://127.0.0.1:{port}/c.png) }}"
        content = printing.pdf(html, css)
        done.append(True)
        thread.join()
    assert asked == []
    assert b"root:" not in content
    assert b"EmbeddedFile" not in content


@pytest.mark.django_db
def test_what_people_typed_is_escaped() -> None:
    documents.seller(footer="<script>1</script>")
    owner = books.organization("<b>Acme</b>")
    documents.profile(owner, legal_name="<img src=x>", address="<style>")
    page = html_of(issue(documents.draft(owner)))
    for tag in ("<script>1", "<img", "<style", "<b>"):
        assert tag not in page


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = tmp_path / "stand_in.py"
    path.write_text(script)
    monkeypatch.setattr(printing, "PROCESS", path)


def test_without_the_library_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, f"import sys; sys.exit({printing.LIBRARY_MISSING})")
    with pytest.raises(ConfigurationError, match="Pango"):
        printing.check()


def test_the_process_itself_notices_that_the_library_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real file, in a Python whose weasyprint cannot be imported."""
    source = printing.PROCESS.read_text(encoding="utf-8")
    broken = "import sys; sys.modules['weasyprint'] = None\n"
    stand_in(tmp_path, monkeypatch, broken + source)
    with pytest.raises(ConfigurationError, match="Pango"):
        printing.check()


def test_what_takes_too_long_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(printing, "TIMEOUT_S", 0.5)
    before = time.monotonic()
    with pytest.raises(Unavailable, match="too long"):
        printing.check()
    assert time.monotonic() - before < 10


def test_what_fails_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "raise SystemError('broken')")
    with pytest.raises(Unavailable, match="could not be made"):
        printing.check()


def test_too_many_at_once_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    places = BoundedSemaphore(1)
    places.acquire()
    monkeypatch.setattr(printing, "_places", places)
    monkeypatch.setattr(printing, "WAIT_S", 0.05)
    with pytest.raises(Unavailable, match="Too many"):
        printing.check()


def test_a_document_without_end_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too long"):
        printing.pdf("x" * (printing.MAX_HTML_CHARACTERS + 1), "")


def test_the_process_gets_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "environment"
    script = f"import os, sys; open({str(out)!r}, 'w').write(str(os.environ)); sys.stdout.write('%PDF-')"
    stand_in(tmp_path, monkeypatch, script)
    monkeypatch.setenv("CRUN_SECRET_KEY", "very-secret")
    printing.check()
    assert "PATH" in out.read_text()
    assert "very-secret" not in out.read_text()
    assert "weasyprint" not in sys.modules
