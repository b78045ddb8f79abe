"""What other users of the machine can see and do: nothing, not even the user who runs PostgreSQL for root."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from crun.embedded import EmbeddedServerError, embedded_servers
from crun.embedded.account import server_account
from crun.embedded.foreign import append_text, replace_text
from crun.embedded.places import choose_data_place, release_sockets
from crun.home import Home, ensure_secrets
from crun.supervisor.lock import hold_lock
from crun.supervisor.program import Account, Program, spawn
from crun.supervisor.programs import beat_program

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend PostgreSQL another user")
NOBODY = Account(name="nobody", uid=65534, gid=65534)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that is none of PostgreSQL's business."""
    file = tmp_path / "victim"
    file.write_text("kept")
    file.chmod(0o600)
    return file


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of the user who runs PostgreSQL."""
    folder = tmp_path / "foreign"
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY.uid, NOBODY.gid)
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def untouched(victim: Path) -> bool:
    return victim.read_text() == "kept" and mode(victim) == 0o600


def test_nothing_is_appended_through_a_link(foreign: Path, victim: Path) -> None:
    (foreign / "postgresql.conf").symlink_to(victim)
    with pytest.raises(EmbeddedServerError, match="cannot be written"):
        append_text(foreign, "postgresql.conf", "include 'crun.conf'\n")
    assert untouched(victim)


@needs_root
def test_nothing_is_appended_to_a_second_name_of_another_users_file(foreign: Path, victim: Path) -> None:
    (foreign / "postgresql.conf").hardlink_to(victim)
    with pytest.raises(EmbeddedServerError, match="no plain file of the owner"):
        append_text(foreign, "postgresql.conf", "include 'crun.conf'\n")
    assert untouched(victim)


def test_a_pipe_in_place_of_a_file_holds_nobody_up(foreign: Path) -> None:
    os.mkfifo(foreign / "postgresql.conf")
    with pytest.raises(EmbeddedServerError, match="cannot be written"):
        append_text(foreign, "postgresql.conf", "include 'crun.conf'\n")


def test_links_in_place_of_our_settings_are_replaced_and_not_followed(foreign: Path, victim: Path) -> None:
    for name in ("crun.conf", "crun.conf.new"):
        (foreign / name).symlink_to(victim)
    replace_text(foreign, "crun.conf", "port = 5432\n")
    assert untouched(victim)
    assert not (foreign / "crun.conf").is_symlink()
    assert (foreign / "crun.conf").read_text() == "port = 5432\n"
    assert mode(foreign / "crun.conf") == 0o644  # whatever the umask, PostgreSQL's user reads it


def test_a_name_swapped_while_we_write_gives_no_other_file_our_mode(
    foreign: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fchmod = os.fchmod

    def swap_first(descriptor: int, bits: int) -> None:
        (foreign / "crun.conf.new").unlink()
        (foreign / "crun.conf.new").symlink_to(victim)
        real_fchmod(descriptor, bits)

    monkeypatch.setattr(os, "fchmod", swap_first)
    replace_text(foreign, "crun.conf", "port = 5432\n")
    assert untouched(victim)


def test_a_link_in_place_of_the_folder_is_refused(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(foreign)
    with pytest.raises(EmbeddedServerError, match="cannot be written"):
        replace_text(tmp_path / "link", "crun.conf", "")
    assert list(foreign.iterdir()) == []


@needs_root
def test_the_folder_around_moved_data_stays_roots(lasting_home: Home) -> None:
    lasting_home.path.mkdir(mode=0o700)
    place = choose_data_place(lasting_home, NOBODY)
    outer = place.parent
    assert (outer.stat().st_uid, outer.stat().st_gid, mode(outer)) == (0, NOBODY.gid, 0o710)
    assert (outer / "home").read_text() == str(lasting_home.path)


def test_sockets_swapped_for_a_link_take_nothing_with_them(home: Home, tmp_path: Path) -> None:
    home.create()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    (tmp_path / "crun-moved").symlink_to(precious)  # what the owner of the moved sockets folder may do in /tmp
    (home.path / "sockets").symlink_to(tmp_path / "crun-moved")
    release_sockets(home)
    assert (precious / "file").exists()
    assert not (home.path / "sockets").is_symlink()


def test_a_new_home_and_its_logs_are_closed_to_others(home: Home, child: Callable[..., Program]) -> None:
    previous = os.umask(0o022)
    try:
        with hold_lock(home):
            program = child("writer", "echo hello > $OUT", env={"OUT": str(home.path / "made")})
            assert spawn(program).wait(20) == 0
            beat_program(home)
    finally:
        os.umask(previous)
    assert mode(home.path) == (0o711 if os.geteuid() == 0 else 0o700)  # root's: PostgreSQL's user passes through
    assert {path.name: mode(path) for path in home.path.iterdir() if path.is_dir()} == dict.fromkeys(
        ("beat", "logs", "run"), 0o700
    )
    assert mode(home.logs / "writer.log") == 0o600
    assert mode(home.path / "made") == 0o600


def test_whoever_is_first_closes_a_new_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRUN_SECRET_KEY")
    assert ensure_secrets(home)
    assert mode(home.path) & 0o066 == 0
    assert mode(home.secrets_file) == 0o600


def test_a_home_that_was_there_keeps_its_mode(home: Home) -> None:
    home.path.mkdir()
    home.path.chmod(0o750)
    home.create()
    assert mode(home.path) == 0o750


def test_every_folder_of_a_running_home_is_closed(lasting_home: Home) -> None:
    lasting_home.path.parent.chmod(0o755)
    with embedded_servers(lasting_home):
        closed = [lasting_home.logs, lasting_home.sockets, lasting_home.postgres, lasting_home.valkey]
        assert [mode(folder) for folder in closed] == [0o700] * len(closed)
        assert all(mode(log) == 0o600 for log in lasting_home.logs.iterdir())


def test_foreign_servers_get_none_of_our_secrets(lasting_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CRUN_ENCRYPTION_KEYS", "CRUN_SECRET_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, "master-key")
    with embedded_servers(lasting_home) as servers:
        for server in (servers.postgres, servers.valkey):
            assert not server.program.inherits_env
            if (environment := Path(f"/proc/{server.pid}/environ")).exists():
                assert b"master-key" not in environment.read_bytes()


@needs_root
def test_a_program_of_another_user_inherits_nothing(
    home: Home, child: Callable[..., Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRUN_ENCRYPTION_KEYS", "master-key")
    program = child("stranger", "env", account=NOBODY, env={"LC_ALL": "C"})
    assert spawn(program).wait(20) == 0
    said = program.log.read_text()
    assert "LC_ALL=C\n" in said
    assert "PATH=" in said
    assert "master-key" not in said


@needs_root
def test_without_a_user_of_its_own_postgres_runs_as_nobody(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare container has no `postgres`, and `initdb` refuses a number without a name."""
    monkeypatch.delenv("CRUN_PG_USER", raising=False)
    monkeypatch.setattr("crun.embedded.account.DEFAULT_NAMES", ("no-such-user", "nobody"))
    account = server_account(home.postgres)
    assert account is not None
    assert account.name == "nobody"
    with embedded_servers(home, durable=False) as servers:
        assert servers.postgres.program.account == account
