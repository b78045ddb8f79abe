"""Logs: one JSON object a line, with keys and credentials redacted at this one place."""

import re
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRETS = re.compile(r"\b(ak_[0-9A-Za-z]{4})[0-9A-Za-z]+|(?i:(bearer|basic)\s+)\S+|\bsk-[0-9A-Za-z_-]{8,}")


def redact(text: str) -> str:
    """The text with API keys, bearer credentials and vendors' keys made unreadable."""
    return _SECRETS.sub(lambda match: f"{match.group(1) or match.group(2) or 'sk-'}…", text)


def redact_event(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: every string of the event redacted."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = redact(value)
    return event


def logging_settings(*, level: str) -> dict[str, Any]:
    """Python's logging configuration for every process."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": [
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.stdlib.ExtraAdder(),
                ],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    redact_event,
                    structlog.processors.JSONRenderer(),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "django.request": {"level": "ERROR"},
            "django.server": {"level": "WARNING"},
            "httpx": {"level": "WARNING"},
            "uvicorn": {"level": "WARNING"},
            # Without a handler in reach uvicorn does not even compose a line for each request.
            "uvicorn.access": {"handlers": [], "propagate": False},
            # One task a second: only its failures are news.
            "celery.worker.strategy": {"level": "WARNING"},
            "celery.app.trace": {"level": "WARNING"},
        },
    }
