"""The commands of CRUN's own processes: ASGI workers, Celery worker, beat and the sandbox upstream."""

import os
import signal
import sys

from crun.drain_limits import whole_drain_s
from crun.home import Home
from crun.supervisor.program import Program, StopStep

ROLE_URLS = ("CRUN_DATABASE_URL_GATEWAY", "CRUN_DATABASE_URL_WORKER", "CRUN_DATABASE_URL_WEB")
CELERY = (sys.executable, "-m", "celery", "-A", "crun.celery")
WORKER_PROCESSES = 2


def asgi_program(home: Home, *, number: int, listener_fd: int) -> Program:
    """One ASGI worker on the supervisor's listening socket. SIGTERM lets its streams end, within limits."""
    name = f"asgi-{number}"
    return Program(
        name=name,
        argv=(sys.executable, "-m", "crun.serve", "--fd", str(listener_fd), "--worker", str(number)),
        log=home.logs / f"{name}.log",
        env=database_access("web"),  # gateway and pages are one process here, so it has what the pages need
        inherited_fds=(listener_fd,),
        aliases=("asgi",) if number == 0 else (),
        stop_steps=(StopStep(signal.SIGTERM, whole_drain_s()),),
        stop_together="asgi",
    )


def worker_program(home: Home) -> Program:
    """The Celery worker. SIGTERM lets running tasks end; one that is cut off runs again."""
    # WARNING: Celery's INFO is two lines for every task, and one runs each second
    options = f"-c {WORKER_PROCESSES} -n crun@%h --loglevel WARNING --without-gossip --without-mingle".split()
    return Program(
        name="worker",
        argv=(*CELERY, "worker", *options),
        log=home.logs / "worker.log",
        env=database_access("worker"),
        stop_steps=(StopStep(signal.SIGTERM, 20.0),),
    )


def beat_program(home: Home) -> Program:
    """Celery's clock."""
    schedule = home.path / "beat" / "schedule"
    schedule.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Program(
        name="beat",
        argv=(*CELERY, "beat", "-s", str(schedule), "--loglevel", "WARNING"),
        log=home.logs / "beat.log",
        env=database_access("worker"),
    )


def sandbox_program(home: Home, *, port: int) -> Program:
    """The upstream that needs no credential."""
    return Program(
        name="sandbox",
        argv=(sys.executable, "-m", "crun.sandbox", "--host", "127.0.0.1", "--port", str(port)),
        log=home.logs / "sandbox.log",
    )


def prepare_program(home: Home) -> Program:
    """Migrations and seed; says on standard output what is new."""
    return Program(name="prepare", argv=(sys.executable, "-m", "crun.cli", "prepare"), log=home.logs / "prepare.log")


def database_access(role: str) -> dict[str, str]:
    """The environment in which a process logs in to PostgreSQL as its own role, and knows no other way.

    Without a URL for the role on a server of one's own, it is DATABASE_URL as before."""
    url = os.environ.get(f"CRUN_DATABASE_URL_{role.upper()}")
    others = {name: "" for name in ROLE_URLS if os.environ.get(name)}
    return {"CRUN_DATABASE_ROLE": role, **(others | {"DATABASE_URL": url} if url else {})}
