"""docs/errors.md has the table of apps/gateway/errors.py: the same rows, in both directions."""

import re
from pathlib import Path

from apps.gateway import errors
from apps.gateway.errors import ErrorKind

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
NGINX = (ROOT / "deploy" / "nginx" / "crun.conf").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<status>\d{3}) \| `(?P<type>\w+)` \| (?:`(?P<code>\w+)`)? ?\| (?P<again>yes)? ?\| .+ \|$", re.MULTILINE
)


def test_the_table_is_that_of_the_code() -> None:
    implemented = {kind for kind in vars(errors).values() if isinstance(kind, ErrorKind)}
    documented = {
        ErrorKind(int(row["status"]), row["type"], row["code"], retry=row["again"] == "yes")
        for row in ROW.finditer(PAGE)
    }
    assert len(implemented) > 10
    assert documented == implemented


def test_the_codes_of_nginx_are_documented() -> None:
    codes = set(re.findall(r'"code":"(\w+)"', NGINX))
    assert len(codes) == 2
    section = PAGE[PAGE.index("## From nginx") :]
    assert {code for code in codes if f"`{code}`" not in section} == set()
