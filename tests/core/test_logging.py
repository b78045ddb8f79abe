"""Redaction: no key or credential reaches a log."""

import logging
import logging.config

import pytest

from apps.core.logging import logging_settings, redact
from apps.keys.keyformat import new_key


def test_keys_and_credentials_are_cut() -> None:
    key = new_key()
    for text in (f"got {key} here", f"Authorization: Bearer {key}", "basic dXNlcjpwYXNz", "sk-proj-abcdefgh12345678"):
        assert key not in redact(text)
        assert "dXNlcjpwYXNz" not in redact(text)
        assert "abcdefgh12345678" not in redact(text)


def test_a_key_in_a_message_an_extra_or_a_traceback_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    key = new_key()
    settings = logging_settings(level="INFO")
    formatter = logging.config.DictConfigurator(settings).configure_formatter(settings["formatters"]["json"])
    try:
        raise ValueError(f"no such key: {key}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, f"failed for {key}", (), (type(error), error, None))
    record.presented = key
    written = formatter.format(record)
    assert key not in written and "failed for" in written
