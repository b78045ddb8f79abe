"""docker-compose.yml as the tests read it: services, variables filled in, commands that can run without an engine."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
NGINX_CONF = ROOT / "deploy" / "nginx" / "crun.conf"

IMAGE_PROGRAMS = {
    "celery": (sys.executable, "-m", "celery"),
    "crun": (sys.executable, "-m", "crun.cli"),
    "python": (sys.executable,),
    "uvicorn": (sys.executable, "-m", "uvicorn"),
}
"""The programs that our image has, as this environment has them."""
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?P<operator>:-|:\?)?(?P<word>[^}]*)\}")


def read_compose() -> dict[str, Any]:
    """The whole document, with its anchors resolved and its variables as they stand."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text(encoding="utf-8"))
    return document


def services() -> dict[str, dict[str, Any]]:
    """Every service by its name."""
    found: dict[str, dict[str, Any]] = read_compose()["services"]
    return found


def own_services() -> dict[str, dict[str, Any]]:
    """The services that run our image."""
    return {name: service for name, service in services().items() if "build" in service}


def variables(text: str) -> dict[str, str]:
    """The variables that a text names -> how: `:-` has a default, `:?` is required."""
    return {match["name"]: match["operator"] or "" for match in _VARIABLE.finditer(text)}


def filled_in(text: str, values: dict[str, str]) -> str:
    """The text as compose would fill it in; KeyError for a required variable without a value."""

    def fill(match: re.Match[str]) -> str:
        value = values.get(match["name"])
        if not value and match["operator"] == ":-":
            return match["word"]
        return values[match["name"]]

    return _VARIABLE.sub(fill, text).replace("$$", "$")


def as_run_here(command: list[str]) -> list[str]:
    """A command of our image, run by this Python."""
    return [*IMAGE_PROGRAMS[command[0]], *command[1:]]
