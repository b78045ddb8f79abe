"""The embedded PostgreSQL and Valkey, started as the user who runs these tests (root or not)."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from crun.embedded import EmbeddedServerError, EmbeddedServers, binaries, embedded_servers
from crun.embedded.postgres import clear_way, start_postgres, wait_for_postgres
from crun.home import Home
from crun.supervisor.lock import AlreadyRunning

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend PostgreSQL another user")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServers]:
    home = Home(tmp_path_factory.mktemp("embedded") / "home")
    with embedded_servers(home) as servers:
        yield servers
    if home.postgres.is_symlink():
        shutil.rmtree(home.postgres.resolve().parent)


@pytest.fixture(autouse=True)
def no_choices_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRUN_PG_BIN", raising=False)
    monkeypatch.delenv("CRUN_PG_USER", raising=False)


def query(home: Home, sql: str) -> object:
    with psycopg.connect(host=str(home.sockets), user="crun", dbname="crun") as connection:
        row = connection.execute(sql).fetchone()
        return row[0] if row else None


def say_to_valkey(home: Home, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(home.valkey_socket))
        client.sendall(line + b"\r\n")
        return client.recv(4096)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("listen_addresses", ""),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("shared_buffers", "128MB"),
        ("max_connections", "100"),
        ("unix_socket_permissions", "0700"),
    ],
)
def test_postgres_is_private_and_durable(running: EmbeddedServers, setting: str, value: str) -> None:
    assert query(running.home, f"SELECT current_setting('{setting}')") == value


def test_text_sorts_by_bytes_and_knows_unicode(running: EmbeddedServers) -> None:
    assert query(running.home, "SELECT lower('ÄÉ')") == "äé"
    assert query(running.home, "SELECT 'Z' < 'a'") is True


def test_valkey_is_private_and_keeps_everything(running: EmbeddedServers) -> None:
    answer = say_to_valkey(running.home, b"CONFIG GET port appendonly appendfsync maxmemory-policy unixsocketperm")
    words = answer.decode().split()[2::2]
    settings = dict(zip(words[::2], words[1::2], strict=True))
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "unixsocketperm": "700",
    }


def test_sockets_and_data_are_for_their_owner_alone(running: EmbeddedServers) -> None:
    for folder in (running.home.sockets, running.home.postgres.resolve(), running.home.valkey):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_a_home_in_use_is_refused(running: EmbeddedServers) -> None:
    with pytest.raises(AlreadyRunning, match=str(os.getpid())), embedded_servers(running.home):
        pytest.fail("two servers on one home")


def test_killed_servers_start_again_with_their_data(running: EmbeddedServers) -> None:
    with psycopg.connect(host=str(running.home.sockets), user="crun", dbname="crun") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert say_to_valkey(running.home, b"SET kept 42") == b"+OK\r\n"
    for server in (running.postgres, running.valkey):
        old = server.pid
        server.kill()
        _start_again(server.start)
        assert server.pid != old
    assert query(running.home, "SELECT answer FROM kept") == 42
    assert say_to_valkey(running.home, b"GET kept") == b"$2\r\n42\r\n"


def test_postgres_can_be_taken_away_and_given_back(running: EmbeddedServers) -> None:
    running.postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        query(running.home, "SELECT 1")
    running.postgres.start()
    assert query(running.home, "SELECT 1") == 1


def test_a_second_start_finds_its_data_and_a_stop_leaves_no_sockets(lasting_home: Home) -> None:
    with embedded_servers(lasting_home):
        with psycopg.connect(host=str(lasting_home.sockets), user="crun", dbname="crun") as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        sockets = lasting_home.sockets
    assert not sockets.exists()
    assert not (lasting_home.path / "sockets").is_symlink()
    with embedded_servers(lasting_home):
        assert query(lasting_home, "SELECT answer FROM kept") == 42


def test_volatile_servers_leave_no_data_outside_their_home(home: Home) -> None:
    with embedded_servers(home, durable=False):
        assert query(home, "SELECT current_setting('fsync')") == "off"
        data = home.postgres.resolve()
    assert not data.exists() or data.is_relative_to(home.path.resolve())


def test_a_postgres_that_lost_its_supervisor_is_stopped_first(lasting_home: Home) -> None:
    lost = start_postgres(lasting_home)
    wait_for_postgres(lasting_home)
    with embedded_servers(lasting_home) as servers:
        assert lost.wait(20) == 0
        assert servers.postgres.pid != lost.pid
        assert query(lasting_home, "SELECT 1") == 1


def test_a_pid_file_that_names_a_stranger_is_no_obstacle(tmp_path: Path) -> None:
    lock = tmp_path / "postmaster.pid"
    with subprocess.Popen(["/bin/sleep", "600"]) as stranger:
        lock.write_text(f"{stranger.pid}\n{tmp_path}\n")
        clear_way(tmp_path)
        assert stranger.poll() is None
        stranger.kill()
    assert not lock.exists()


def test_the_socket_folder_of_a_deep_home_is_short(tmp_path: Path) -> None:
    home = Home(tmp_path.joinpath(*(["a-rather-long-folder-name"] * 6)) / "home")
    with embedded_servers(home, durable=False):
        assert (home.path / "sockets").is_symlink()
        assert len(os.fsencode(home.sockets / ".s.PGSQL.5432")) <= 107
        assert stat.S_IMODE(home.sockets.stat().st_mode) == 0o700
        assert say_to_valkey(home, b"PING") == b"+PONG\r\n"
        assert query(home, "SELECT 1") == 1


def test_data_of_another_major_version_is_refused_in_words(home: Home) -> None:
    home.postgres.mkdir(parents=True, mode=0o700)
    (home.postgres / "PG_VERSION").write_text("9\n")
    if os.geteuid() == 0:
        os.chown(home.postgres, 65534, 65534)
    with pytest.raises(EmbeddedServerError, match=r"written by PostgreSQL 9, but only .* CRUN_PG_BIN"):
        start_postgres(home)


def test_a_link_to_lost_data_is_refused_instead_of_starting_empty(home: Home, tmp_path: Path) -> None:
    home.path.mkdir()
    home.postgres.symlink_to(tmp_path / "gone")
    with pytest.raises(EmbeddedServerError, match="which is gone"):
        start_postgres(home)


def test_a_folder_without_binaries_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRUN_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedServerError, match=f"CRUN_PG_BIN is {tmp_path}"):
        binaries.find_postgres()


def test_an_interrupted_initialization_is_begun_anew(home: Home) -> None:
    half = home.path / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("half")
    with embedded_servers(home, durable=False):
        assert query(home, "SELECT 1") == 1


@needs_root
def test_root_in_a_closed_folder_moves_the_data_and_opens_nothing(lasting_home: Home) -> None:
    closed = lasting_home.path.parent
    closed.chmod(0o700)
    with embedded_servers(lasting_home) as servers:
        data = lasting_home.postgres.resolve()
        assert lasting_home.postgres.is_symlink()
        assert not data.is_relative_to(closed)
        assert data.stat().st_uid != 0
        assert data.parent.stat().st_uid == 0
        assert stat.S_IMODE(data.parent.stat().st_mode) == 0o710
        status = Path(f"/proc/{servers.postgres.pid}/status").read_text()
        assert f"\nUid:\t{data.stat().st_uid}\t" in status
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_binaries_in_a_closed_folder_are_copied_once(
    lasting_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_place: Path
) -> None:
    original = binaries.find_postgres()
    prefix = original.folder.parent
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = prefix.parent
    shutil.copytree(prefix, closed / package.name / prefix.name, ignore=shutil.ignore_patterns("include", "*.a"))
    if (libraries := package.with_name(package.name + ".libs")).is_dir():
        shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setenv("CRUN_PG_BIN", str(closed / package.name / prefix.name / "bin"))
    copy = shared_place / f"postgresql-{original.version}"
    with embedded_servers(lasting_home) as servers:
        assert Path(servers.postgres.program.argv[0]).is_relative_to(copy)
        assert query(lasting_home, "SELECT 1") == 1
    made = copy.stat().st_ino
    with embedded_servers(lasting_home):
        assert copy.stat().st_ino == made
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_an_unknown_user_for_postgres_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRUN_PG_USER", "no-such-user")
    with pytest.raises(EmbeddedServerError, match="CRUN_PG_USER names no-such-user"):
        start_postgres(home)


def _start_again(start: Callable[[], None]) -> None:
    """Orphans of a killed server may hold its memory for a moment; the supervisor tries again just so."""
    for _ in range(20):
        try:
            start()
        except EmbeddedServerError:
            continue
        return
    pytest.fail("the server did not start again")
