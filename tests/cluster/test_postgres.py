"""Three real PostgreSQL members under Patroni, with the configuration that is rendered for them.

Patroni is PyPI's, PostgreSQL Debian's; paths differ from a host's, and settings of memory are smaller.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from cluster import operate, render
from cluster.clients import patroni_of
from cluster.operate import NotNow
from cluster.parse import parse
from cluster.patroni import PatroniUnavailable
from cluster.places import PLACES
from cluster.quorum import synchronous_standbys
from cluster.render.node import dsn
from cluster.topology import Topology
from tests.cluster.example import three_hosts
from tests.cluster.pki import make_certificate
from tests.cluster.servers import DIE_WITH_US, EtcdServers, Pki, server_port
from tests.postgres import debian_programs
from tests.support import require, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.postgres, pytest.mark.slow]
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
START_SECONDS = 90.0
FAILOVER_SECONDS = 29.0  # ttl + loop_wait + 2 s, and what HAProxy's checks would take


class Members:
    """Three members on 127.0.0.2 to 4, in a folder that PostgreSQL's user can reach."""

    def __init__(self, folder: Path, pki: Pki, etcd: EtcdServers) -> None:
        self.folder = folder
        self._pki = pki
        ports = {"etcd_client": server_port(), "postgres": server_port(), "patroni": server_port()}
        mapping = three_hosts(virtual_ip="127.0.0.100/8", ports=ports)
        for number, host in enumerate(mapping["hosts"].values(), 2):
            host["address"] = f"127.0.0.{number}"
        self.topology: Topology = parse(mapping)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._fences: list[subprocess.Popen[bytes]] = []
        for host in self.topology.hosts:
            make_certificate(pki.folder, host.name, host.address)
            key = Path(pki.path(f"{host.name}.key"))
            shutil.chown(key, "root", "postgres")
            key.chmod(0o640)
            home = folder / host.name
            home.mkdir()
            shutil.chown(home, "postgres", "postgres")
            for file in render.files(self.topology, host, ""):
                if file.path.startswith("/etc/patroni/"):
                    path = home / Path(file.path).name
                    path.write_text(self._localized(file.text, host.name, home, etcd))
                    path.chmod(0o755)

    def _localized(self, text: str, name: str, home: Path, etcd: EtcdServers) -> str:
        """A host's text with this machine's paths."""
        for there, here in (
            (PLACES.ca, self._pki.path("ca.crt")),
            (PLACES.certificate, self._pki.path(f"{name}.crt")),
            (PLACES.key, self._pki.path(f"{name}.key")),
            ("/var/lib/postgresql/17/stele", home / "data"),
            ("/var/lib/postgresql/.pgpass-patroni", home / ".pgpass"),
            ("/var/run/postgresql", home),
            ("/usr/lib/postgresql/17/bin", debian_programs()),
            ("/etc/patroni", home),
            ("shared_buffers: 1024MB", "shared_buffers: 32MB"),
        ):
            text = text.replace(there, str(here))
        for host in self.topology.hosts:
            asked = f'"{host.address}:{self.topology.ports.etcd_client}"'
            text = text.replace(asked, f'"127.0.0.1:{etcd.client_ports[0]}"')
            text = text.replace(f" {host.address}/32 ", " 127.0.0.1/32 ")  # loopback's only way out
        return text

    @property
    def dsn(self) -> str:
        """The node's connection string, with the certificate of host a."""
        text = dsn(self.topology)
        for there, here in ((PLACES.ca, "ca.crt"), (PLACES.certificate, "a.crt"), (PLACES.key, "a.key")):
            text = text.replace(there, self._pki.path(here))
        return text

    def start(self, name: str) -> None:
        home = self.folder / name
        reach = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # this checkout
        patroni = str(Path(sys.executable).with_name("patroni"))
        self._processes[name] = self._start(home, *AS_POSTGRES, *reach, patroni, str(home / "config.yml"))

    def start_fence(self, name: str) -> None:
        home = self.folder / name
        self._fences.append(self._start(home, *AS_POSTGRES, str(home / "fence")))

    def _start(self, home: Path, *command: str) -> subprocess.Popen[bytes]:
        with (home / "log").open("ab") as log:
            return subprocess.Popen(
                [*DIE_WITH_US, *command], stdout=log, stderr=log, cwd=home, start_new_session=True
            )

    def postmaster(self, name: str) -> int:
        return int((self.folder / name / "data/postmaster.pid").read_text().split()[0])

    def stop_patroni(self, name: str) -> None:
        """As it stands still when its storage hangs, say; its PostgreSQL goes on."""
        self._processes[name].send_signal(signal.SIGSTOP)

    def patroni_ended(self, name: str) -> bool:
        return self._processes[name].poll() is not None

    def kill(self, name: str) -> None:
        """Patroni and its PostgreSQL at once, as when the host dies."""
        postmaster = self.postmaster(name)
        patroni = self._processes.pop(name)
        patroni.kill()
        os.kill(postmaster, signal.SIGKILL)
        patroni.wait()

    def roles(self) -> dict[str, str]:
        try:
            return {member.name: member.role for member in patroni_of(self.topology).members()}
        except PatroniUnavailable:
            return {}

    def whole(self) -> bool:
        return sorted(self.roles().values()) == ["leader", "quorum_standby", "quorum_standby"]

    @property
    def leader(self) -> str:
        return next(name for name, role in self.roles().items() if role == "leader")

    @property
    def leader_or_none(self) -> str | None:
        return next((name for name, role in self.roles().items() if role == "leader"), None)

    def led_by(self, name: str) -> bool:
        """Make a member the primary; False if it cannot be one yet."""
        try:
            operate.switchover(self.topology, name)
        except NotNow:
            return False
        return True

    def write(self) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute("INSERT INTO written DEFAULT VALUES")

    def prepared(self) -> bool:
        """Make the table to write to; whether that worked."""
        try:
            with psycopg.connect(self.dsn) as connection:
                connection.execute("CREATE TABLE written (at timestamptz DEFAULT now())")
        except psycopg.Error:
            return False
        return True

    def can_write(self) -> bool:
        try:
            self.write()
        except psycopg.Error:
            return False
        return True

    def log(self, name: str) -> str:
        return (self.folder / name / "log").read_text()

    def close(self) -> None:
        for fence in self._fences:
            fence.kill()
            fence.wait()
        for name in list(self._processes):
            try:
                self.kill(name)
            except (OSError, ValueError):
                self._processes.pop(name).kill()


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Iterator[Members]:
    """Three members that follow one another, and a table to write to."""
    require("etcd", needs_root=True)
    folder = Path(tempfile.mkdtemp(prefix="stele-patroni-"))  # pytest's own folders are for root only
    folder.chmod(0o755)
    etcd: EtcdServers | None = None
    found: Members | None = None
    try:
        pki = Pki(folder / "pki")
        etcd = EtcdServers(folder / "etcd", pki)
        etcd.start()
        found = Members(folder, pki, etcd)
        for name, path in (("CA", "ca.crt"), ("CERTIFICATE", "a.crt"), ("KEY", "a.key")):
            monkeypatch.setenv(f"STELE_CLUSTER_{name}", pki.path(path))
        for host in found.topology.hosts:
            found.start(host.name)
        wait_until(found.whole, START_SECONDS, "three members follow")
        wait_until(found.prepared, 20, "there is a table")
        yield found
    except AssertionError:
        if found is not None:
            print("\n".join(found.log(host.name)[-2000:] for host in found.topology.hosts))
        raise
    finally:
        if found is not None:
            found.close()
        if etcd is not None:
            etcd.close()
        shutil.rmtree(folder, ignore_errors=True)


SmallDisk = Callable[[Path], None]


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Puts a disk of 400 MB in a folder's place, with what the folder has."""
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        before = folder.with_name(f"{folder.name}-before")
        folder.rename(before)
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(folder)], check=True)
        mounted.append(folder)
        subprocess.run(["cp", "-a", f"{before}/.", str(folder)], check=True)
        shutil.copystat(before, folder)
        shutil.chown(folder, "postgres", "postgres")
        shutil.rmtree(before)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_commits_wait_for_a_quorum_and_a_dead_primary_is_replaced(members: Members) -> None:
    with psycopg.connect(members.dsn) as connection:
        row = connection.execute(
            "SELECT current_user, current_setting('synchronous_standby_names'),"
            " current_setting('data_checksums'), current_setting('synchronous_commit'),"
            " (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())"
        ).fetchone()
    standbys = ",".join(sorted(name for name, role in members.roles().items() if role != "leader"))
    assert row is not None
    assert row[0::2] == ("stele", "on", True)
    assert row[1].replace('"', "") == f"ANY {synchronous_standbys(3)} ({standbys})"
    assert row[3] == "on"

    for wrong in ("user=postgres", "user=replicator", "user=rewinder dbname=postgres sslcert= sslkey="):
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(f"{members.dsn} {wrong}")

    old = members.leader
    operate.switchover(members.topology, None)
    wait_until(members.can_write, 5, "writes go on after a switchover")
    assert members.leader != old
    with pytest.raises(NotNow, match="is the primary already"):
        operate.switchover(members.topology, members.leader)
    wait_until(members.whole, 30, "all follow the new primary")
    assert not operate.configure_postgres(members.topology), "nothing is to be changed"
    larger = replace(members.topology, dimse_workers=members.topology.dimse_workers + 1)
    assert operate.configure_postgres(larger)
    wait_until(lambda: not operate.configure_postgres(larger), 20, "members have read what has changed")

    dead = members.leader
    members.kill(dead)
    begun = time.monotonic()
    wait_until(members.can_write, FAILOVER_SECONDS, "writes go on after the primary's death")
    print(f"failover: {time.monotonic() - begun:.1f} s")
    members.start(dead)
    wait_until(members.whole, 60, "the old primary follows")

    first, second = (name for name, role in members.roles().items() if role != "leader")
    members.kill(first)
    wait_until(members.can_write, 15, "with one standby writes go on")
    members.kill(second)
    with psycopg.connect(members.dsn, options="-c statement_timeout=3000") as connection:
        connection.execute("INSERT INTO written DEFAULT VALUES")
        waiting = psycopg.connect(members.dsn)
        assert waiting.execute("SELECT count(*) FROM written").fetchone() is not None, "reads go on"
        waiting.close()
        cancelled = threading.Timer(3, connection.cancel)
        cancelled.start()
        begun = time.monotonic()
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        connection.commit()
        assert time.monotonic() - begun > 2
        assert notices == ["canceling wait for synchronous replication due to user request"]
    for name in (first, second):
        members.start(name)
    wait_until(members.can_write, 60, "writes go on when a standby is back")

    with pytest.raises(psycopg.errors.InvalidTextRepresentation), psycopg.connect(members.dsn) as connection:
        connection.execute("SELECT 'CANARY'::int")
    assert "CANARY" not in "".join(members.log(name) for name in "abc")


def test_a_primary_whose_patroni_stands_still_is_ended(members: Members) -> None:
    for host in members.topology.hosts:
        members.start_fence(host.name)
    old = members.leader
    postmaster = Path(f"/proc/{members.postmaster(old)}")
    members.stop_patroni(old)
    begun = time.monotonic()
    wait_until(lambda: not postmaster.exists(), FAILOVER_SECONDS, "the old primary is ended")
    wait_until(members.can_write, FAILOVER_SECONDS - (time.monotonic() - begun), "writes go on")
    print(f"failover: {time.monotonic() - begun:.1f} s")
    assert members.patroni_ended(old), "what stood still is ended, too, and starts anew"
    members.start(old)
    wait_until(members.whole, 60, "the old primary follows")

    standby = next(name for name, role in members.roles().items() if role != "leader")
    follows = Path(f"/proc/{members.postmaster(standby)}")
    members.stop_patroni(standby)
    heard = time.monotonic() + 20
    wait_until(lambda: time.monotonic() > heard or not follows.exists(), 30, "the fence has had its time")
    assert follows.exists(), "a standby harms nobody"


def test_a_primary_without_room_on_its_disk_hands_over(members: Members, small_disk: SmallDisk) -> None:
    small = next(name for name, role in members.roles().items() if role != "leader")
    members.kill(small)
    data = members.folder / small / "data"
    small_disk(data)
    members.start(small)
    wait_until(members.whole, 60, "all follow")
    wait_until(lambda: members.led_by(small), 60, "the one with the small disk takes over")
    wait_until(members.whole, 60, "all follow the one with the small disk")
    for host in members.topology.hosts:
        members.start_fence(host.name)
    with (data / "filling").open("wb") as filling, contextlib.suppress(OSError):
        while True:
            filling.write(bytes(1 << 20))
            filling.flush()
    begun = time.monotonic()
    wait_until(lambda: members.leader_or_none not in (None, small), FAILOVER_SECONDS, "another leads")
    wait_until(members.can_write, FAILOVER_SECONDS - (time.monotonic() - begun), "writes go on")
    print(f"handed over: {time.monotonic() - begun:.1f} s")
    (data / "filling").unlink()
    wait_until(members.whole, 60, "with room again it follows")
