"""What a start says to the person at the terminal."""

import json
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crun.home import BASE_DIR

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
MODEL = "sandbox-echo"


@dataclass(frozen=True)
class Prepared:
    """What `crun prepare` reports. Password and key are known on the first start only."""

    operator_email: str | None
    operator_password: str | None
    api_key: str | None

    @classmethod
    def read(cls, output: str) -> "Prepared":
        """Read the last line of its standard output. Raises ValueError when that is no report."""
        try:
            report = json.loads(output.strip().splitlines()[-1])
        except (IndexError, ValueError):
            report = None
        if not isinstance(report, dict):
            raise ValueError(f"no report in {output!r}")
        return cls(
            operator_email=report.get("operator_email"),
            operator_password=report.get("operator_password"),
            api_key=report.get("api_key"),
        )


def say(text: str) -> None:
    """Print to the terminal. A reader that went away (`make run | head`) must not end the installation."""
    with suppress(OSError):
        print(text, flush=True)


def base_url(host: str, port: int) -> str:
    """The address to visit, without a slash at its end."""
    reachable = ANY_ADDRESS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def curl_command(url: str, api_key: str | None) -> str:
    """One line to paste: a chat completion. Without a key the shell's $CRUN_API_KEY stands in."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello, CRUN!"}]})
    headers = f'-H "Authorization: Bearer {api_key or "$CRUN_API_KEY"}" -H "Content-Type: application/json"'
    return f"curl {url}/api/v1/chat/completions {headers} -d '{body}'"


def credentials(prepared: Prepared) -> list[str]:
    """The lines about login and key: shown once, or how to get new ones."""
    lines = []
    if prepared.operator_password:
        lines.append(f"  Operator   {prepared.operator_email}  password: {prepared.operator_password}  (shown once)")
    else:
        email = prepared.operator_email or "EMAIL"
        reset = f"{_command('python')} {_shown(BASE_DIR / 'manage.py')} changepassword {email}"
        lines.append(f"  Operator   as before; for a new password: {reset}")
    if prepared.api_key:
        lines.append(f"  API key    {prepared.api_key}  (shown once)")
    else:
        lines.append(
            f"  API key    as before; for a new one: {_command('crun')} key create --organization demo --name N"
        )
    return lines


def welcome(url: str, prepared: Prepared, *, logs: Path, took_s: float) -> str:
    """The end of a start."""
    lines = [
        f"CRUN is ready ({took_s:.1f} s).",
        "",
        f"  Portal     {url}/",
        f"  Console    {url}/console/",
        *credentials(prepared),
        f"  Logs       {logs}",
        "",
        "Try it:",
        "",
        f"  {curl_command(url, prepared.api_key)}",
        "",
        "Ctrl-C stops everything.",
    ]
    return "\n".join(lines)


def _command(name: str) -> str:
    """How to call a command of this environment from where the person stands."""
    own = Path(sys.executable).with_name(name)
    return name if not own.exists() or shutil.which(name) == str(own) else _shown(own)


def _shown(path: Path) -> str:
    """A path as short as the working directory allows."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
