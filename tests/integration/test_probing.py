"""Write probes on real PostgreSQL servers: what they take for acknowledged, and two primaries caught."""

import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaos.checks import violations
from chaos.model import Evidence, Probe, Seen
from chaos.probing.probes import follow
from tests.postgres import debian_programs
from tests.support import require, wait_until

pytestmark = [pytest.mark.postgres, pytest.mark.slow]
PROGRAM = Path(__file__).parents[2] / "chaos/probing/on_host.py"
SECONDS = 90
USER = "postgres"


class Server:
    """One of Debian's servers, reached through a socket in its own folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        folder.mkdir()
        shutil.chown(folder, USER, USER)
        self.dsn = f"host={folder} user={USER} dbname=postgres"

    def run(self, program: str, *arguments: str) -> None:
        """One of the server's programs, as its user."""
        command = ["runuser", "-u", USER, "--", str(debian_programs() / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=SECONDS, cwd="/")

    def start(self) -> None:
        settings = f"-c listen_addresses= -c unix_socket_directories={self.folder} -c fsync=off"
        log = str(self.folder / "log")
        self.run("pg_ctl", "-D", str(self.data), "-l", log, "-o", settings, "-w", "start")

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop")


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    require("runuser", needs_root=True)
    debian_programs()
    with tempfile.TemporaryDirectory(prefix="stele-probe-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        assert pwd.getpwnam(USER)
        primary, standby = Server(folder / "a"), Server(folder / "b")
        primary.run("initdb", "--no-sync", "-D", str(primary.data), "-A", "trust", "-U", USER)
        primary.start()
        try:
            standby.run(
                "pg_basebackup",
                "--no-sync",
                "-c",
                "fast",
                "-h",
                str(primary.folder),
                "-U",
                USER,
                "-D",
                str(standby.data),
                "-R",
            )
            standby.start()
            try:
                yield primary, standby
            finally:
                standby.stop()
        finally:
            primary.stop()


@contextmanager
def probed(server: Server, host: str, into: list[Probe]) -> Iterator["subprocess.Popen[bytes]"]:
    """The probe on a server, started as on a host, for the time of a block."""
    command = [sys.executable, "-c", PROGRAM.read_text(), server.dsn, "20"]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    stop = threading.Event()
    thread = threading.Thread(target=follow, args=(program, host, into.append, stop))
    thread.start()
    try:
        yield program
    finally:
        stop.set()
        thread.join()


def judged(probes: list[Probe]) -> list[str]:
    return [str(each) for each in violations(Evidence([[]], [], Seen(probes=probes)))]


def test_a_primary_acknowledges_a_standby_does_not_and_two_primaries_are_caught(
    pair: tuple[Server, Server],
) -> None:
    primary, standby = pair
    old: list[Probe] = []
    new: list[Probe] = []
    with probed(primary, "a", old), probed(standby, "b", new):
        wait_until(lambda: len(old) > 3, SECONDS, "the primary acknowledges")
        assert new == []
        assert {(each.host, each.timeline) for each in old} == {("a", 1)}
        assert all(each.began < each.ended for each in old)
        assert judged(old) == []

        standby.run("pg_ctl", "-D", str(standby.data), "promote")  # and nobody has fenced the other
        wait_until(lambda: len(new) > 3, SECONDS, "the new primary acknowledges")
        assert {(each.host, each.timeline) for each in new} == {("b", 2)}
        before = len(old)
        wait_until(lambda: len(old) > before, SECONDS, "the old primary still acknowledges")
    (told,) = judged([*old, *new])
    assert told.startswith("one primary: timeline 1 on a still acknowledged ")
    # One that had stopped in time is none
    first = min(each.ended for each in new)
    assert judged([each for each in old if each.began < first] + new) == []


def test_it_goes_on_after_a_restart_and_ends_with_its_standard_input(pair: tuple[Server, Server]) -> None:
    primary, _ = pair
    told: list[Probe] = []
    with probed(primary, "a", told) as program:
        wait_until(lambda: told, SECONDS, "the primary acknowledges")
        primary.stop()
        primary.start()
        before = len(told)
        wait_until(lambda: len(told) > before, SECONDS, "it acknowledges again")
    assert program.returncode == 0


def test_a_commit_that_no_standby_has_confirmed_is_no_acknowledgement(pair: tuple[Server, Server]) -> None:
    """PostgreSQL gives the wait up when it is told to cancel, and then only warns."""
    primary, standby = pair
    told: list[Probe] = []
    psql = ("psql", "-h", str(primary.folder), "-U", USER, "-c")
    with probed(primary, "a", told):
        wait_until(lambda: told, SECONDS, "the primary acknowledges")
        standby.stop()
        try:
            primary.run(*psql, "ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.run(*psql, "SELECT pg_reload_conf()")
            wait_until(lambda: _waits(primary), SECONDS, "a probe waits for the standby")
            before = len(told)
            primary.run(
                *psql, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )
            wait_until(lambda: _waits(primary), SECONDS, "the next probe waits")
            assert len(told) == before
        finally:
            standby.start()
        wait_until(lambda: len(told) > before, SECONDS, "it acknowledges again")


def _waits(server: Server) -> bool:
    command = [
        "runuser",
        "-u",
        USER,
        "--",
        str(debian_programs() / "psql"),
        "-h",
        str(server.folder),
        "-U",
        USER,
    ]
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query = 'COMMIT'"
    done = subprocess.run([*command, "-Atc", query], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.strip() == "1"
