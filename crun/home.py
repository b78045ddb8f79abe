"""Where one installation keeps its files: $CRUN_HOME with data, sockets, process ids, secrets and journal."""

import os
import secrets
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import environ

BASE_DIR = Path(__file__).resolve().parent.parent

SECRET_NAMES = ("CRUN_SECRET_KEY", "CRUN_KEY_PEPPERS", "CRUN_ENCRYPTION_KEYS")


@dataclass(frozen=True)
class Home:
    """The folders of one installation. Nothing is created by looking at them."""

    path: Path

    def create(self) -> None:
        """Make the folder itself unless it is there, closed to other users.

        Root's may be passed through, though not listed: PostgreSQL's user has its folders in it. What lies there is
        closed to others by itself.
        """
        if not self.path.is_dir():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.geteuid() == 0:
                self.path.chmod(0o711)

    @property
    def run(self) -> Path:
        """Process ids: `NAME.pid`, one a child."""
        return self.path / "run"

    @property
    def sockets(self) -> Path:
        """Unix sockets of the embedded servers, resolved: the name in $CRUN_HOME may be a link to a shorter place."""
        return (self.path / "sockets").resolve()

    @property
    def postgres(self) -> Path:
        return self.path / "postgres"

    @property
    def valkey(self) -> Path:
        return self.path / "valkey"

    @property
    def valkey_socket(self) -> Path:
        return self.sockets / "valkey.sock"

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def secrets_file(self) -> Path:
        return self.path / "secrets.env"

    def database_settings(self, role: str = "") -> dict[str, str]:
        """Django's connection keys for the embedded PostgreSQL: as its owner, or as the role of one process."""
        return {"HOST": str(self.sockets), "NAME": "crun", "USER": f"crun_{role}" if role else "crun"}

    def redis_url(self) -> str:
        """URL of the embedded Valkey."""
        return f"unix://{self.valkey_socket}?db=0"


def current_home() -> Home:
    """The installation that this process belongs to: $CRUN_HOME, by default `var` in the checkout."""
    return Home(Path(os.environ.get("CRUN_HOME") or BASE_DIR / "var").absolute())


def load_environment() -> Home:
    """Read `.env` of the checkout, then the generated secrets of the home; what is set already wins."""
    environ.Env.read_env(BASE_DIR / ".env")
    for name in SECRET_NAMES:
        if not os.environ.get(name):
            os.environ.pop(name, None)  # an empty line in .env must not hide the generated secret
    home = current_home()
    environ.Env.read_env(home.secrets_file)
    return home


def ensure_secrets(home: Home) -> bool:
    """Generate the secrets of a new installation (mode 0600). True when a file was written."""
    if home.secrets_file.exists() or all(os.environ.get(name) for name in SECRET_NAMES):
        return False
    home.create()
    lines = [
        "# Secrets of this installation, made on its first start. Losing them makes every API key and every",
        "# stored upstream credential useless: back this file up with the database, and keep it private.",
        f"CRUN_SECRET_KEY={secrets.token_urlsafe(48)}",
        f"CRUN_KEY_PEPPERS=p{secrets.token_hex(3)}:{b64encode(secrets.token_bytes(32)).decode()}",
        f"CRUN_ENCRYPTION_KEYS=e{secrets.token_hex(3)}:{b64encode(secrets.token_bytes(32)).decode()}",
    ]
    descriptor = os.open(home.secrets_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(lines) + "\n")
    return True
