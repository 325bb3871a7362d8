"""The catalog when PostgreSQL fails: nothing is acknowledged that is not durable, and every wait ends."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import conninfo

from node.adapters.catalog_postgres import admission, pool
from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.domain.errors import Reason, Refusal
from node.domain.model import Admission
from tests.contract.catalog_records import STORE, one, open_catalog, record, rows
from tests.support import free_port, wait_until

T = TypeVar("T")


@pytest.fixture
def dsn(any_postgres_dsn: str) -> str:
    return any_postgres_dsn


@pytest.fixture
def catalog(dsn: str) -> Iterator[PostgresCatalog]:
    catalog = open_catalog(dsn)
    yield catalog
    catalog.close()


class Call(Generic[T]):
    """A call in a thread of its own, and how it ended."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.result: T | None = None
        self.error: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.error = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def refused(self) -> Reason:
        """The reason it was refused with, once it has ended."""
        self._thread.join(20)
        assert isinstance(self.error, Refusal), (self.result, self.error)
        return self.error.reason

    def value(self) -> T:
        self._thread.join(20)
        assert self.error is None, self.error
        assert self.result is not None
        return self.result


def refused(call: Callable[[], object]) -> Reason:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.reason


@contextmanager
def missing_standby(dsn: str) -> Iterator[None]:
    """The server waits for a synchronous standby that is not there."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        # Set for these connections only: this one's own commits must not wait.
        connection.execute("SET synchronous_commit = local")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'missing'")
        connection.execute("SELECT pg_reload_conf()")
        try:
            wait_until(
                lambda: one(dsn, "SHOW synchronous_standby_names") == "missing", 10, "setting in force"
            )
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
            wait_until(lambda: one(dsn, "SHOW synchronous_standby_names") == "", 10, "setting reset")


def waiting_for_standby(dsn: str) -> list[int]:
    """Backends of this database that wait for the standby in COMMIT."""
    return [
        pid
        for (pid,) in rows(
            dsn,
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND datname = current_database()",
        )
    ]


# --- The standby ---------------------------------------------------------------------------------


def test_a_cancelled_wait_for_the_standby_is_not_acknowledged(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    with missing_standby(dsn):
        call = Call(lambda: catalog.instances.admit(record(2), STORE))
        wait_until(lambda: waiting_for_standby(dsn), 10, "COMMIT waits")
        (pid,) = waiting_for_standby(dsn)
        rows(dsn, f"SELECT pg_cancel_backend({pid})")
        assert call.refused() is Reason.UNAVAILABLE
        # The row is there, unreplicated: sending it again must wait again, not find it and be content.
        again = Call(lambda: catalog.instances.admit(record(2), STORE))
        wait_until(lambda: waiting_for_standby(dsn), 10, "the retry's COMMIT waits")
        assert again.running
    admission_, _ = again.value()
    assert admission_ is Admission.DUPLICATE


def test_a_cancelled_wait_spoils_the_long_way_and_single_writes_too(
    catalog: PostgresCatalog, dsn: str
) -> None:
    with missing_standby(dsn):
        for write in (
            lambda: catalog.instances.admit(record(1, study="2.25.77"), STORE),
            lambda: catalog.audits.record(STORE),
            lambda: catalog.leases.acquire("job", "me", 60),
        ):
            call = Call(write)
            wait_until(lambda: waiting_for_standby(dsn), 10, "COMMIT waits")
            for pid in waiting_for_standby(dsn):
                rows(dsn, f"SELECT pg_cancel_backend({pid})")
            assert call.refused() is Reason.UNAVAILABLE


def test_the_statement_timeout_never_cuts_a_commit(dsn: str) -> None:
    catalog = open_catalog(dsn, statement_seconds=0.8)
    catalog.instances.admit(record(1), STORE)
    with missing_standby(dsn):
        call = Call(lambda: catalog.instances.admit(record(2), STORE))
        age = "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - query_start)), 0)::float8"
        wait_until(
            lambda: one(dsn, f"{age} FROM pg_stat_activity WHERE wait_event = 'SyncRep'") > 2.4,
            10,
            "COMMIT waits three times as long as a statement may",
        )
        assert call.running
    admission_, _ = call.value()
    assert admission_ is Admission.STORED
    catalog.close()


def test_a_commit_that_never_ends_is_given_up(
    catalog: PostgresCatalog, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "COMMIT_SECONDS", 1.0)
    monkeypatch.setattr(pool, "COMMIT_SECONDS", 1.0)
    catalog.instances.admit(record(1), STORE)
    with missing_standby(dsn):
        started = time.monotonic()
        assert refused(lambda: catalog.instances.admit(record(2), STORE)) is Reason.UNAVAILABLE
        assert refused(lambda: catalog.instances.admit(record(study="2.25.9"), STORE)) is Reason.UNAVAILABLE
        assert refused(lambda: catalog.audits.record(STORE)) is Reason.UNAVAILABLE
        assert time.monotonic() - started < 10
    admission_, _ = catalog.instances.admit(record(3), STORE)
    assert admission_ is Admission.STORED


# --- The connection ------------------------------------------------------------------------------


def test_a_backend_killed_in_mid_transaction_leaves_nothing(catalog: PostgresCatalog, dsn: str) -> None:
    catalog.instances.admit(record(1), STORE)
    with psycopg.connect(dsn, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(%s)", (lock_key("study", "2.25.1"),))
        call = Call(lambda: catalog.instances.admit(record(2), STORE))
        blocked = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        )
        wait_until(lambda: rows(dsn, blocked), 10, "the admission waits for the study")
        ((pid,),) = rows(dsn, blocked)
        rows(dsn, f"SELECT pg_terminate_backend({pid})")
        assert call.refused() is Reason.UNAVAILABLE
    assert catalog.instances.find("2.25.1.1.2") is None
    assert one(dsn, "SELECT count(*) FROM audit_events") == 1
    admission_, _ = catalog.instances.admit(record(2), STORE)
    assert admission_ is Admission.STORED


def test_connections_that_ended_while_idle_are_not_lent_out(catalog: PostgresCatalog, dsn: str) -> None:
    with catalog.pool.connection(), catalog.pool.connection(), catalog.pool.connection():
        pass
    mine = (
        "FROM pg_stat_activity WHERE application_name = 'stele' AND datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    assert one(dsn, f"SELECT count(*) {mine}") == 3
    rows(dsn, f"SELECT pg_terminate_backend(pid) {mine}")
    wait_until(lambda: one(dsn, f"SELECT count(*) {mine}") == 0, 10, "backends ended")
    for number in range(3):
        catalog.instances.admit(record(number), STORE)


def test_a_connection_to_a_read_only_server_is_dropped(catalog: PostgresCatalog) -> None:
    """A demoted primary: `SELECT 1` works there, writing fails with 25006."""
    catalog.instances.admit(record(1), STORE)
    with catalog.pool.connection() as first, catalog.pool.connection() as second:
        for connection in (first, second):
            connection.execute("SET default_transaction_read_only = on")
    assert refused(lambda: catalog.instances.admit(record(2), STORE)) is Reason.UNAVAILABLE
    admission_, _ = catalog.instances.admit(record(2), STORE)
    assert admission_ is Admission.STORED, "the idle sister was dropped as well"


def test_check_says_read_only_and_finds_the_new_primary(catalog: PostgresCatalog) -> None:
    catalog.check()
    with catalog.pool.connection() as connection:
        connection.execute("SET default_transaction_read_only = on")
    assert refused(catalog.check) is Reason.UNAVAILABLE
    catalog.check()


def test_a_read_only_server_is_not_even_connected_to(dsn: str, server_dsn: str) -> None:
    name = conninfo.conninfo_to_dict(dsn)["dbname"]
    rows(server_dsn, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    assert refused(lambda: open_catalog(dsn)) is Reason.UNAVAILABLE


def test_a_server_that_is_away_is_refused_at_once() -> None:
    started = time.monotonic()
    dsn = f"host=127.0.0.1 port={free_port()} dbname=x user=x"
    assert refused(lambda: open_catalog(dsn)) is Reason.UNAVAILABLE
    assert time.monotonic() - started < 3


def test_a_server_that_comes_back_is_used_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pg")
    server = EmbeddedPostgres(folder)
    away = pool.Pool(server.start(), size=2, connect_seconds=5, statement_seconds=5)
    try:
        with away.connection() as connection:
            connection.execute("SELECT 1")
        server.stop()
        assert refused(lambda: away.connection().__enter__()) is Reason.UNAVAILABLE
        server.start()
        with away.connection() as connection:
            connection.execute("SELECT 1")
    finally:
        away.close()
        server.stop()


def test_waiting_for_a_connection_is_bounded(dsn: str) -> None:
    small = pool.Pool(dsn, size=1, connect_seconds=0.2, statement_seconds=5)
    with small.connection():
        assert small.in_use == 1
        assert refused(lambda: small.connection().__enter__()) is Reason.UNAVAILABLE
    with small.connection() as connection:
        connection.execute("SELECT 1")
    assert small.in_use == 0
    small.close()


# --- Limits of the server ------------------------------------------------------------------------


def test_a_statement_that_takes_too_long_is_refused(dsn: str) -> None:
    catalog = open_catalog(dsn, statement_seconds=0.8)
    with psycopg.connect(dsn, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(%s)", (lock_key("study", "2.25.1"),))
        assert refused(lambda: catalog.instances.admit(record(1), STORE)) is Reason.UNAVAILABLE
    admission_, _ = catalog.instances.admit(record(1), STORE)
    assert admission_ is Admission.STORED
    catalog.close()


def test_a_full_disk_is_store_full(catalog: PostgresCatalog, dsn: str) -> None:
    """The server's own error number for it, raised where a row's pages would be extended."""
    rows(
        dsn,
        "CREATE FUNCTION no_space() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$",
    )
    rows(dsn, "CREATE TRIGGER no_space BEFORE INSERT ON instances FOR EACH ROW EXECUTE FUNCTION no_space()")
    assert refused(lambda: catalog.instances.admit(record(1), STORE)) is Reason.STORE_FULL
    rows(dsn, "DROP TRIGGER no_space ON instances")
    admission_, _ = catalog.instances.admit(record(1), STORE)
    assert admission_ is Admission.STORED


@pytest.mark.parametrize("mode", ["off", "local"])
def test_a_server_that_does_not_wait_for_durability_is_refused(dsn: str, mode: str) -> None:
    careless = conninfo.make_conninfo(dsn, options=f"-c synchronous_commit={mode}")
    with pytest.raises(Refusal, match=f"synchronous_commit={mode}"):
        open_catalog(careless)


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_its_files_is_refused(
    tmp_path_factory: pytest.TempPathFactory, setting: str
) -> None:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg"), settings={setting: "off"})
    try:
        with pytest.raises(Refusal, match=f"{setting}=off"):
            open_catalog(server.start())
    finally:
        server.stop()


def test_a_fault_of_ours_is_not_dressed_up_as_a_refusal(catalog: PostgresCatalog) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn), catalog.pool.transaction() as connection:
        connection.execute("SELECT nonsense")
    with catalog.pool.connection() as connection:
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_the_connection_string_is_completed_but_not_overruled() -> None:
    ours = pool.parameters("host=a,b,c dbname=x application_name=other", 9)
    assert ours["target_session_attrs"] == "read-write"
    assert ours["application_name"] == "other"
    assert ours["connect_timeout"] == 3
    assert ours["tcp_user_timeout"] == 10_000


def test_connections_lent_out_are_counted_whatever_becomes_of_them(catalog: PostgresCatalog) -> None:
    def lent() -> float:
        return REGISTRY.get_sample_value("stele_catalog_connections", {"state": "in_use"}) or 0.0

    before = lent()
    with catalog.pool.connection():
        assert lent() == before + 1
    with pytest.raises(Refusal), catalog.pool.connection() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert lent() == before
