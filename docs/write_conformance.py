"""Write the conformance matrix anew: `python -m docs.write_conformance`, after a provider's dialect has changed.

It runs the test that compares the page with the code, with this module as a plug-in: then the test writes it first."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", "-n", "0", "-p", "docs.write_conformance", "tests/conformance/test_conformance.py"]))
