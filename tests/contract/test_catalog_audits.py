"""The audit trail: sealed without stopping a writer, and any later change is found."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from node.adapters.catalog_postgres import audits
from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.adapters.catalog_postgres.locks import lock_key
from node.domain.model import Actor, AuditEvent
from tests.contract.catalog_records import STORE, one, open_catalog, record, rows
from tests.support import wait_until

EVENT = AuditEvent(
    "query", Actor("Ädmin", "2001:db8::1", "http"), "success", ("2.25.1",), {"ü": [1, 0.5, None], "a": True}
)


@pytest.fixture
def dsn(any_postgres_dsn: str) -> str:
    return any_postgres_dsn


@pytest.fixture
def catalog(dsn: str) -> Iterator[PostgresCatalog]:
    catalog = open_catalog(dsn)
    yield catalog
    catalog.close()


def seal(catalog: PostgresCatalog, dsn: str) -> int:
    """Seal when no transaction of the server's own (autovacuum) holds the newest rows back."""
    ended = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(txid) FROM audit_events"
    wait_until(lambda: one(dsn, ended), 30, "all transactions ended")
    return catalog.audits.seal()


@pytest.fixture
def sealed(catalog: PostgresCatalog, dsn: str) -> PostgresCatalog:
    """A catalog with three seals over two events each."""
    for _ in range(3):
        catalog.audits.record(EVENT)
        catalog.audits.record(EVENT)
        assert seal(catalog, dsn) == 2
    assert catalog.audits.verify() == []
    return catalog


def test_an_event_is_kept_as_it_was_told(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.audits.record(EVENT)
    assert rows(
        dsn, "SELECT action, outcome, actor, address, protocol, study_uids, detail FROM audit_events"
    ) == [("query", "success", "Ädmin", "2001:db8::1", "http", ["2.25.1"], {"ü": [1, 0.5, None], "a": True})]


def test_an_actor_cannot_break_the_trail_with_odd_characters(catalog: PostgresCatalog, dsn: str) -> None:
    odd = AuditEvent("login", Actor("a\x00b", "192.0.2.1", "http"), detail={"x": "\x00y", "\x00": ["\x00"]})
    catalog.audits.record(odd)
    assert rows(dsn, "SELECT actor, detail FROM audit_events") == [("ab", {"x": "y", "": [""]})]
    assert seal(catalog, dsn) == 1
    assert catalog.audits.verify() == []


def test_rows_are_unsealed_until_sealed(catalog: PostgresCatalog, dsn: str) -> None:
    assert catalog.audits.unsealed() == (0, 0.0)
    catalog.audits.record(EVENT)
    count, age_seconds = catalog.audits.unsealed()
    assert count == 1
    assert 0 <= age_seconds < 60
    assert seal(catalog, dsn) == 1
    assert catalog.audits.unsealed() == (0, 0.0)
    assert catalog.audits.seal() == 0
    assert catalog.audits.verify() == []


def test_an_open_transaction_holds_back_its_rows_and_waits_for_nobody(
    catalog: PostgresCatalog, dsn: str
) -> None:
    catalog.audits.record(EVENT)
    assert seal(catalog, dsn) == 1
    with catalog.pool.transaction() as connection:
        audits.write_event(connection, EVENT)
        catalog.audits.record(EVENT)  # later than the open one: its turn comes after it
        assert catalog.audits.seal() == 0
        audits.write_event(connection, EVENT)
    assert catalog.audits.unsealed()[0] == 3
    assert seal(catalog, dsn) == 3
    assert catalog.audits.verify() == []
    assert one(dsn, "SELECT sum(events) FROM audit_seals") == 4


def test_sealing_goes_on_beside_writers(catalog: PostgresCatalog, dsn: str) -> None:
    def keep_recording() -> None:
        for _ in range(50):
            catalog.audits.record(EVENT)

    with ThreadPoolExecutor(5) as threads:
        writers = [threads.submit(keep_recording) for _ in range(4)]
        total = 0
        while not all(writer.done() for writer in writers):
            total += catalog.audits.seal()
            assert catalog.audits.verify() == []
        for writer in writers:
            writer.result()
    total += seal(catalog, dsn)
    assert total == 200
    assert catalog.audits.verify() == []


def test_a_backlog_is_sealed_in_bounded_batches(
    catalog: PostgresCatalog, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "BATCH_EVENTS", 10)
    for _ in range(25):
        catalog.audits.record(EVENT)
    with catalog.pool.transaction() as connection:
        for _ in range(15):  # one transaction is not divided
            audits.write_event(connection, EVENT)
    assert seal(catalog, dsn) == 40
    assert rows(dsn, "SELECT seal_id, events FROM audit_seals ORDER BY 1") == [(1, 10), (2, 10), (3, 20)]
    assert catalog.audits.verify() == []


def test_two_workers_do_not_seal_at_once(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.audits.record(EVENT)
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("seal", ""),))
        assert catalog.audits.seal() == 0
    assert seal(catalog, dsn) == 1


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        ("UPDATE audit_events SET actor = 'nobody' WHERE event_id = 3", "seal 2 does not fit its events"),
        ("UPDATE audit_events SET detail = '{}' WHERE event_id = 3", "seal 2 does not fit its events"),
        ("UPDATE audit_events SET at = at + interval '1us' WHERE event_id = 3", "seal 2 does not fit"),
        ("UPDATE audit_events SET study_uids = '{}' WHERE event_id = 1", "seal 1 does not fit its events"),
        ("DELETE FROM audit_events WHERE event_id = 6", "seal 3 covers 2 events, but 1 are there"),
        (
            "INSERT INTO audit_events (txid, action, outcome, actor, address, protocol, study_uids, detail)"
            " SELECT txid, action, outcome, 'me', address, protocol, study_uids, detail FROM audit_events"
            " WHERE event_id = 4",
            "seal 2 covers 2 events, but 3 are there",
        ),
        ("UPDATE audit_seals SET hash = sha256('x') WHERE seal_id = 2", "seal 2 does not fit its events"),
        ("DELETE FROM audit_seals WHERE seal_id = 2", "seal 2 is missing"),
        (
            "DELETE FROM audit_seals WHERE seal_id = 2; UPDATE audit_seals SET seal_id = 2 WHERE seal_id = 3",
            "seal 2 covers 2 events, but 4 are there",
        ),
        ("UPDATE audit_seals SET below_txid = '1' WHERE seal_id = 3", "seal 3 does not follow"),
    ],
)
def test_tampering_is_found(sealed: PostgresCatalog, dsn: str, tampering: str, finding: str) -> None:
    for statement in tampering.split(";"):
        rows(dsn, statement)
    findings = sealed.audits.verify()
    assert any(finding in each for each in findings), findings


def test_admissions_write_rows_that_can_be_sealed(catalog: PostgresCatalog, dsn: str) -> None:
    for number in range(3):
        catalog.instances.admit(record(number), STORE)
    assert seal(catalog, dsn) == 3
    assert catalog.audits.verify() == []


def test_a_chain_ahead_of_the_server_is_not_passed_over_in_silence(
    catalog: PostgresCatalog, dsn: str
) -> None:
    """A dump restored into a new server: its transaction numbers begin anew."""
    catalog.audits.record(EVENT)
    rows(dsn, "INSERT INTO audit_seals VALUES (1, '999999999999', 0, 'x')")
    with pytest.raises(audits.AuditChainError, match="restored from a dump"):
        catalog.audits.seal()
