"""Migrations: applied once and in order, refused when changed, harmless to whoever is serving."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from node.adapters.catalog_postgres.migrate import (
    FOLDER,
    MigrationError,
    migrate,
    migrations,
    require_schema,
    statements,
)
from node.adapters.catalog_postgres.pool import Pool
from node.domain.model import Admission, Level
from tests.contract.catalog_records import STORE, one, open_catalog, record, rows
from tests.postgres import empty_database
from tests.support import wait_until


@pytest.fixture
def dsn(server_dsn: str) -> str:
    return empty_database(server_dsn)


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    pool = Pool(dsn, size=2, connect_seconds=5, statement_seconds=10)
    yield pool
    pool.close()


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name[1:]}.sql").write_text(text)
    return folder


def test_all_are_applied_in_order_and_once(dsn: str) -> None:
    names = [f"{each.version:04}_{each.name}" for each in migrations()]
    assert [each.version for each in migrations()] == list(range(1, len(names) + 1))
    assert migrate(dsn) == names
    assert migrate(dsn) == []
    assert one(dsn, "SELECT count(*) FROM schema_migrations") == len(names)


def test_several_at_once_apply_each_once(dsn: str) -> None:
    with ThreadPoolExecutor(3) as threads:
        applied = list(threads.map(lambda _: migrate(dsn), range(3)))
    assert sorted(map(len, applied)) == [0, 0, len(migrations())]


def test_an_applied_file_must_not_change(dsn: str, tmp_path: Path) -> None:
    migrate(dsn, folder=write(tmp_path, _0001_a="CREATE TABLE a ()"))
    write(tmp_path, _0001_a="CREATE TABLE a (b int)", _0002_c="CREATE TABLE c ()")
    with pytest.raises(MigrationError, match="0001 was changed"):
        migrate(dsn, folder=tmp_path)
    assert one(dsn, "SELECT to_regclass('c') IS NULL")


def test_a_failing_file_leaves_nothing(dsn: str, tmp_path: Path) -> None:
    write(tmp_path, _0001_a="CREATE TABLE a ()", _0002_b="CREATE TABLE b (); SELECT nonsense")
    with pytest.raises(MigrationError, match="0002_b"):
        migrate(dsn, folder=tmp_path)
    assert one(dsn, "SELECT to_regclass('b') IS NULL")
    write(tmp_path, _0002_b="CREATE TABLE b ()")
    assert migrate(dsn, folder=tmp_path) == ["0002_b"]


@pytest.mark.parametrize("name", ["_1", "_x_y", "_0001a"])
def test_wrong_names_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, **{name: ""})
    with pytest.raises(MigrationError, match=r"NNNN_what\.sql"):
        migrations(tmp_path)


def test_a_number_is_used_once(tmp_path: Path) -> None:
    write(tmp_path, _0001_a="", _1_b="")
    with pytest.raises(MigrationError, match="twice"):
        migrations(tmp_path)


def test_statements_end_at_the_end_of_a_line() -> None:
    text = "-- no transaction\nCREATE INDEX\n  a;\n-- why\nSELECT ';' || 1;\n"
    assert statements(text) == ["CREATE INDEX\n  a;", "SELECT ';' || 1;"]
    with pytest.raises(MigrationError, match="semicolon"):
        statements("SELECT 1")


def test_a_node_refuses_an_older_schema_and_takes_a_newer_one(dsn: str, pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="stele migrate"):
        require_schema(pool)
    with pytest.raises(MigrationError, match="lacks migration 0001_catalog"):
        open_catalog(dsn)
    for path in FOLDER.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    write(tmp_path, _9999_future="ALTER TABLE instances ADD COLUMN future text")
    migrate(dsn, folder=tmp_path)
    require_schema(pool)
    catalog = open_catalog(dsn)
    assert catalog.instances.admit(record(1), STORE)[0] is Admission.STORED
    catalog.close()


def test_a_migration_lets_go_of_a_lock_it_does_not_get_and_tries_again(dsn: str, tmp_path: Path) -> None:
    """Whoever waits for a strong lock makes all others queue behind it."""
    write(tmp_path, _0001_a="CREATE TABLE a (n int)")
    migrate(dsn, folder=tmp_path)
    write(tmp_path, _0002_b="ALTER TABLE a ADD COLUMN b int")
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass"
    with psycopg.connect(dsn) as reader, ThreadPoolExecutor(1) as threads:
        reader.execute("SELECT FROM a")
        migration = threads.submit(migrate, dsn, folder=tmp_path)
        for _ in range(2):
            wait_until(lambda: one(dsn, waiting) == 1, 10, "the migration waits for the table")
            wait_until(lambda: one(dsn, waiting) == 0, 10, "it lets go")
        rows(dsn, "SET lock_timeout = '5s'; INSERT INTO a VALUES (1)")
        reader.rollback()
        assert migration.result(30) == ["0002_b"]


def test_the_former_version_goes_on_writing_while_the_schema_changes(dsn: str, tmp_path: Path) -> None:
    for path in FOLDER.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    migrate(dsn, folder=tmp_path)
    write(
        tmp_path,
        _9001_column="ALTER TABLE instances ADD COLUMN tier text; CREATE TABLE tiers (name text)",
        _9002_index="-- no transaction\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS instances_source ON instances (source);\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS instances_tier ON instances (tier);\n",
    )
    catalog = open_catalog(dsn)
    enough, stop = threading.Event(), threading.Event()

    def keep_writing(study: str) -> int:
        number = 0
        while not stop.is_set():
            assert catalog.instances.admit(record(number, study=study), STORE)[0] is Admission.STORED
            number += 1
            if number == 50:
                enough.set()
        return number

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(keep_writing, f"2.25.{number}") for number in (1, 2)]
        assert enough.wait(20)
        applied = migrate(dsn, folder=tmp_path)
        stop.set()
        written = sum(writer.result() for writer in writers)
    catalog.close()
    assert applied == ["9001_column", "9002_index"]
    assert one(dsn, "SELECT count(*) FROM instances") == written
    assert one(dsn, "SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'instances'::regclass")


def test_configured_tags_get_their_indexes(dsn: str) -> None:
    tags = {Level.STUDY: ("00321032",), Level.SERIES: ("00181030",)}
    migrate(dsn)
    before = one(dsn, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'")
    migrate(dsn, tags)
    migrate(dsn, tags)
    assert one(dsn, "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'") > before
