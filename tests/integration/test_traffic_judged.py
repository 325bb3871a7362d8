"""Deletions and the audit trail of a real archive, judged from the clients' log, and broken by hand."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from chaos import history, judging, trail
from chaos.checks import violations
from chaos.history import DELETE, Result
from chaos.model import Limits
from tests.archive import Archive, running_archive
from tests.kills import faults
from tests.support import require, wait_until

pytestmark = [pytest.mark.peers, pytest.mark.slow]
COUNT = 150
SECONDS = 120


@dataclass
class Run:
    """A run against an archive, and the files it left."""

    archive: Archive
    folder: Path

    @property
    def recorded(self) -> Path:
        return self.folder / "history.jsonl"

    def chaos(self, *arguments: str) -> None:
        where = ("--dicom", f"127.0.0.1:{self.archive.dicom_port}", "--http", self.archive.base_url)
        module, *others = arguments
        subprocess.run([sys.executable, "-m", module, *where, *others], check=True, timeout=SECONDS)

    def deletions(self) -> list[history.Operation]:
        done = history.read([self.recorded]).operations if self.recorded.exists() else []
        return [each for each in done if each.kind == DELETE and each.result is Result.OK]

    def database(self) -> "psycopg.Connection[tuple[object, ...]]":
        postgres = self.archive.data / "postgres"
        password = (postgres / "password").read_text()
        return psycopg.connect(
            host=str(postgres / "run"), user="stele", dbname="stele", password=password, autocommit=True
        )

    def broken(self) -> set[tuple[str, str]]:
        """(invariant, first words) of what the archive as it is now has broken."""
        with self.database() as connection:
            rows = connection.execute(trail.EXPORT.format(since=0).encode()).fetchall()
        audit, seen, findings = (
            self.folder / name for name in ("audit.jsonl", "seen.json", "findings.jsonl")
        )
        audit.write_text("".join(f"{json.dumps(row)}\n" for (row,) in rows))
        command = [sys.executable, "-m", "node.cli", "check", "--json", "--data", str(self.archive.data)]
        findings.write_bytes(subprocess.run(command, capture_output=True, check=False).stdout)
        self.chaos("chaos.readback", "--out", str(seen), str(self.recorded))
        given = judging.evidence([self.recorded], seen, Limits(), findings=findings, audit=audit)
        return {(each.invariant, each.what.partition(":")[0]) for each in violations(given)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Clients that send, read and delete while the database is killed, and have all they want in the end."""
    require("storescu", "getscu", "findscu")
    folder = tmp_path_factory.mktemp("judged")
    with running_archive(folder / "data") as archive:
        done = Run(archive, folder)
        where = ("--dicom", f"127.0.0.1:{archive.dicom_port}", "--http", archive.base_url)
        what = ("--count", str(COUNT), "--rate", "10", "--delete-rate", "4", "--seed", "9")
        command = [sys.executable, "-m", "chaos.traffic", *where, *what, "--history", str(done.recorded)]
        with subprocess.Popen(command) as clients:
            wait_until(lambda: len(done.deletions()) > 5, SECONDS, "some instances are deleted")
            (database,) = [each for each in faults.FAULTS if each.name == "database"]
            assert faults.kill_one(database, archive, random.Random(1)) is not None
            assert clients.wait(SECONDS) == 0
        yield done


def test_what_was_deleted_stays_so_and_everything_is_in_the_trail(run: Run) -> None:
    deleted = {each.uid for each in run.deletions()}
    assert len(deleted) > 10
    again = [each for each in history.read([run.recorded]).operations if each.client == "deleter"]
    assert {each.uid for each in again if each.status == "0 rows"} & deleted  # it was looked for
    assert run.broken() == set()


def test_an_instance_that_is_back_is_noticed(run: Run) -> None:
    """Sent again by somebody whom the history does not know."""
    uid = run.deletions()[0].uid
    recorded = history.read([run.recorded])
    other = run.folder / "other.jsonl"
    run.chaos("chaos.traffic", "--count", str(COUNT), "--seed", "9", "--history", str(other))
    assert uid in {each.uid for each in history.read([other]).operations if each.acknowledged}
    assert recorded.corpora == [(9, COUNT)]
    broken = run.broken()
    assert {invariant for invariant, _ in broken} == {"deleted"}
    assert any(what.startswith("deleted, retrieved by WADO-RS") for _, what in broken)


def test_a_row_taken_out_of_the_trail_is_noticed(run: Run) -> None:
    """By the clients' log; by the chain, too, if it was sealed already."""
    (uid,) = {each.uid for each in run.deletions()[-1:]}
    with run.database() as connection:
        wait_until(lambda: _sealed(connection) > COUNT, SECONDS, "the trail is sealed")
        connection.execute("DELETE FROM audit_events WHERE detail ->> 'instance_uid' = %s", (uid,))
    broken = run.broken()
    assert ("audited", "broken chain") in broken
    assert any(what.endswith("not in the trail") for invariant, what in broken if invariant == "audited")


def _sealed(connection: "psycopg.Connection[tuple[object, ...]]") -> int:
    row = connection.execute("SELECT coalesce(sum(events), 0)::int FROM audit_seals").fetchone()
    return int(str(row[0])) if row else 0
