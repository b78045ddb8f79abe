"""`python -m bench.admission`: what limits and money cost a request, in CPU of the gateway and of Valkey."""

import json
import os
import subprocess
import sys
from statistics import median

import click

from bench.children import BenchFailed, scratch_folder
from crun.embedded.valkey import start_valkey, wait_for_valkey
from crun.home import BASE_DIR, Home

LIMIT_US = 120.0
_CHILD = "import django; django.setup(); from bench.admitting import main; main()"
_SECRET = "only-for-the-benchmark-" + "x" * 40


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Each with and without.")
@click.option("--requests", default=8_000, show_default=True, type=click.IntRange(100), help="In each round.")
@click.option("--concurrency", default=32, show_default=True, type=click.IntRange(1, 512), help="At once.")
@click.option("--check", is_flag=True, help=f"Fail above {LIMIT_US:.0f} us.")
def main(*, rounds: int, requests: int, concurrency: int, check: bool) -> None:
    """Measure admission and settlement: the same requests with and without them, in turn, in one process."""
    with scratch_folder() as folder:
        home = Home(folder / "h")
        home.sockets.mkdir(parents=True, exist_ok=True)
        valkey = start_valkey(home)
        try:
            wait_for_valkey(home)
            found = _run_child(home, valkey.pid, [rounds, requests, concurrency])
        finally:
            valkey.terminate()
            valkey.wait()
    per_request = {name: [cpu / requests * 1e6 for cpu in found[name]] for name in found}
    for name, values in per_request.items():
        click.echo(f"{name:<32}{median(values):8.1f} us  ({min(values):.1f} to {max(values):.1f})")
    added = median(per_request["with limits and money"]) - median(per_request["without"])
    click.echo(f"{'admission and settlement':<32}{added:8.1f} us of the gateway's CPU a request; limit {LIMIT_US:.0f}")
    sys.exit(int(check and added > LIMIT_US))


def _run_child(home: Home, valkey_pid: int, numbers: list[int]) -> dict[str, list[float]]:
    """The child's figures: CPU seconds of every round, by what was done. Raises BenchFailed."""
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "crun.settings",
        "CRUN_HOME": str(home.path),
        "REDIS_URL": home.redis_url(),
        "CRUN_SECRET_KEY": _SECRET,
        "CRUN_LOG_LEVEL": "WARNING",
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *map(str, [valkey_pid, *numbers])],
        cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise BenchFailed(done.stderr)
    return dict(json.loads(done.stdout))


if __name__ == "__main__":
    main()
