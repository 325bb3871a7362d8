"""The backup tier: what pgBackRest is told, and what it and PostgreSQL say of backups and of the log."""

import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster import backups, render
from cluster.assess import troubles
from cluster.backups import Archiver, Backup, BackupsUnknown
from cluster.explain import explain
from cluster.render.backup import queue_bytes
from cluster.topology import GIB, Topology
from tests.cluster.example import eleven_hosts, three_hosts, topology
from tests.cluster.test_assess import NOW, WELL

FULL = Backup("20300101-010203F", "full", NOW.timestamp() - 3600)


def kept_on(name: str, **changed: Any) -> Topology:
    """Three hosts, one of which keeps the backups beside all else."""
    mapping = three_hosts(**changed)
    every = ["etcd", "postgres", "ceph-mon", "ceph-mgr", "ceph-osd", "node", "haproxy", "monitoring"]
    mapping["hosts"][name]["tiers"] = [*every, "backup"]
    return topology(mapping)


def text(found: Topology, name: str, path: str) -> str:
    [file] = [each for each in render.files(found, found.host(name), "") if each.path == path]
    return file.text


def test_the_member_beside_the_repository_comes_first() -> None:
    """pgBackRest's archive-push and restore work on pg1, which must be this host's."""
    lines = text(kept_on("c"), "c", "/etc/pgbackrest.conf").splitlines()
    assert "pg1-host=198.18.0.13" not in lines
    assert [line for line in lines if "-host=" in line] == ["pg2-host=198.18.0.11", "pg3-host=198.18.0.12"]
    assert "repo1-cipher-type=aes-256-cbc" in lines


def test_only_the_repositorys_host_and_its_members_may_call_each_other() -> None:
    found = kept_on("c")

    def callers(name: str) -> list[str]:
        lines = text(found, name, "/etc/pgbackrest.conf").splitlines()
        return [line for line in lines if line.startswith("tls-server-auth=")]

    assert callers("c") == ["tls-server-auth=a=stele", "tls-server-auth=b=stele"]
    assert callers("a") == ["tls-server-auth=c=stele"]


def test_no_configuration_tells_the_repositorys_secret() -> None:
    for host in kept_on("c").hosts:
        for file in render.files(kept_on("c"), host, ""):
            assert "cipher-pass" not in file.text, file.path


def test_weeks_of_keeping_are_the_sites_choice() -> None:
    lines = text(kept_on("b", backup_weeks=9), "b", "/etc/pgbackrest.conf").splitlines()
    assert {"repo1-retention-full-type=time", "repo1-retention-full=63"} <= set(lines)


def test_log_is_archived_where_backups_are_kept_only() -> None:
    assert 'archive_command: "/bin/true"' in text(topology(), "a", "/etc/patroni/config.yml")
    assert "pgbackrest --stanza=stele archive-push" in text(kept_on("c"), "a", "/etc/patroni/config.yml")


def test_log_that_waits_is_bounded() -> None:
    for found in (kept_on("c"), topology(eleven_hosts())):
        for host in found.on("postgres"):
            limit = queue_bytes(host)
            assert f"archive-push-queue-max={limit // GIB}GiB" in text(
                found, host.name, "/etc/pgbackrest.conf"
            )
            assert 4 * GIB <= limit <= host.memory_bytes


def test_backups_beside_the_catalog_are_told_for_what_they_are() -> None:
    assert "not a fire" in explain(kept_on("c"))
    assert "not a fire" not in explain(topology(eleven_hosts()))


def info(*given: dict[str, Any]) -> str:
    """What pgBackRest 2.55 prints, as far as it is read."""
    stanza = {"name": "stele", "backup": list(given), "status": {"code": 0, "message": "ok"}}
    return json.dumps([stanza])


def test_good_backups_are_read_and_damaged_ones_are_none() -> None:
    good = {"label": "20300101-010203F", "type": "full", "timestamp": {"start": 1, "stop": 20}}
    told = info(
        {**good, "error": False},
        {**good, "error": None, "label": "20300101-010203F_20300102-010203D", "type": "diff"},
        {**good, "error": True},
    )
    assert [(each.kind, each.ended) for each in backups.parse_info(told)] == [("full", 20), ("diff", 20)]
    assert backups.parse_info("[]") == ()
    for wrong in ("", "{}x", "[1]", info({"label": "x"})):
        with pytest.raises(BackupsUnknown):
            backups.parse_info(wrong)


@pytest.mark.parametrize(
    ("archived", "failed", "failing"),
    [(None, None, False), (9.5, 4, False), (9, 10.5, True), (None, 1, True)],
)
def test_archiving_fails_when_the_last_try_did(archived: float, failed: float, failing: bool) -> None:
    told = json.dumps({"waiting": 3 << 24, "archived": archived, "failed": failed})
    assert backups.parse_archiver(told) == Archiver(3 << 24, failing)


def test_a_standby_archives_nothing() -> None:
    assert backups.parse_archiver("\n") is None
    with pytest.raises(BackupsUnknown):
        backups.parse_archiver("{}")


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (replace(WELL, backups=()), ("backup: there is none",)),
        (replace(WELL, backups=(FULL,)), ()),
        (
            replace(WELL, backups=(replace(FULL, ended=NOW.timestamp() - 30 * 3600),)),
            ("backup: the last one ended 30 hours ago",),
        ),
        (replace(WELL, backups_trouble="pgbackrest: no answer"), ("backup: pgbackrest: no answer",)),
    ],
)
def test_old_and_missing_backups_are_troubles(seen: Any, told: tuple[str, ...]) -> None:
    assert troubles(kept_on("c"), seen, NOW) == told


def test_a_backup_says_when_it_ended() -> None:
    assert Backup("x", "full", 0).at == datetime(1970, 1, 1, tzinfo=UTC)


def test_the_secret_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "ansible/roles/backup/files/make-secret"
    secret = tmp_path / "backup/secret.conf"

    def make() -> str:
        done = subprocess.run(["sh", script, secret], capture_output=True, text=True, check=True)
        return done.stdout

    assert make() == "made\n"
    first = secret.read_text()
    assert re.search(r"^repo1-cipher-pass=[A-Za-z0-9+/]{64}$", first, re.MULTILINE)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert make() == ""
    assert secret.read_text() == first
