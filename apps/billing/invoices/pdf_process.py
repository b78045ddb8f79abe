"""Makes a PDF in a process of its own: {"html", "css"} as JSON on standard input, the PDF on standard output.

Run by apps/billing/invoices/printing.py as a plain file, with nothing of the project imported and nothing of its
environment: layout is much work over foreign words, and a process can be stopped. Here alone weasyprint is imported,
which needs the system's Pango library; without it the exit code is LIBRARY_MISSING. No address is ever fetched."""

import json
import logging
import resource
import sys
from typing import Never

LIBRARY_MISSING = 3
MEMORY_BYTES = 1 << 30
CPU_S = 30

logging.getLogger("weasyprint").addHandler(logging.NullHandler())

try:
    import weasyprint
except (ImportError, OSError) as error:
    sys.stderr.write(f"{str(error).splitlines()[0]}\n")
    sys.exit(LIBRARY_MISSING)


class AddressRefused(ValueError):
    """A document wanted something from somewhere else."""


class FetchNothing:
    """Refuses every address: of the network, of files, and inline data too. The library goes on without."""

    _fail_on_errors = False  # weasyprint asks its fetcher

    def __call__(self, url: str, *options: object, **named: object) -> Never:
        raise AddressRefused("documents fetch nothing")


def main() -> None:
    """Read, lay out, write."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    asked = json.load(sys.stdin)
    nothing = FetchNothing()
    sheet = weasyprint.CSS(string=asked["css"], url_fetcher=nothing)
    page = weasyprint.HTML(string=asked["html"], url_fetcher=nothing)
    sys.stdout.buffer.write(page.write_pdf(stylesheets=[sheet]))


if __name__ == "__main__":
    main()
