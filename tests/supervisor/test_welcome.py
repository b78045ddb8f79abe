"""What a start prints: addresses, first credentials, a command to paste."""

import json
import shlex
from pathlib import Path

import pytest

from crun.supervisor.welcome import Prepared, base_url, curl_command, welcome

FIRST = Prepared(operator_email="operator@example.com", operator_password="s3cret-word", api_key="ak_first")
LATER = Prepared(operator_email=None, operator_password=None, api_key=None)


def test_the_report_is_the_last_line_of_the_output() -> None:
    report = json.dumps({"first_start": True, "operator_email": "a@b.c", "operator_password": "p", "api_key": "k"})
    assert Prepared.read(f"some noise\n{report}\n") == Prepared("a@b.c", "p", "k")


@pytest.mark.parametrize("output", ["", "no report\n", '["a list"]\n'])
def test_anything_else_is_no_report(output: str) -> None:
    with pytest.raises(ValueError, match="no report"):
        Prepared.read(output)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("gateway.example", "http://gateway.example:8000"),
    ],
)
def test_the_printed_address_can_be_visited(host: str, url: str) -> None:
    assert base_url(host, 8000) == url


def test_the_command_to_paste_is_one_line_that_a_shell_understands() -> None:
    words = shlex.split(curl_command("http://127.0.0.1:8000", "ak_first"))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/api/v1/chat/completions"]
    assert "Authorization: Bearer ak_first" in words
    assert json.loads(words[-1])["model"] == "sandbox-echo"


def test_a_first_start_shows_login_and_key() -> None:
    text = welcome("http://127.0.0.1:8000", FIRST, logs=Path("/srv/crun/logs"), took_s=4.25)
    for shown in (
        "http://127.0.0.1:8000/\n",
        "/console/",
        "operator@example.com",
        "s3cret-word",
        "ak_first",
        "/srv/crun/logs",
    ):
        assert shown in text


def test_a_later_start_says_how_to_get_new_ones() -> None:
    text = welcome("http://127.0.0.1:8000", LATER, logs=Path("/srv/crun/logs"), took_s=4.25)
    assert "manage.py changepassword" in text
    assert "crun key create --organization demo --name N" in text
    assert '"Authorization: Bearer $CRUN_API_KEY"' in text
    assert "None" not in text
