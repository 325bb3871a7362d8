"""Bringing the schema up to date while nodes of the former version go on serving.

`migrations/NNNN_name.sql` are applied in order, once each, under an advisory lock, and remembered with
their digest in `schema_migrations`. See `migrations/README.md` for how to write one. A file whose first
line is `-- no transaction` runs statement by statement outside a transaction (CREATE INDEX CONCURRENTLY);
it must bear being run again after it broke off half-way.

A migration waits for a lock only `LOCK_TIMEOUT`, because whoever waits for a strong lock makes
everybody else queue behind it; then it lets go and tries again, `ATTEMPTS` times.
"""

import hashlib
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.pool import Pool, parameters
from node.adapters.catalog_postgres.searches_extra import extra_index_statements
from node.domain.model import Level

FOLDER = Path(__file__).parent / "migrations"
LOCK_TIMEOUT = "500ms"
ATTEMPTS = 60
PAUSE_SECONDS = 0.5

Connection = psycopg.Connection[Any]

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version integer PRIMARY KEY,
    name text NOT NULL,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The schema cannot be brought, or is not, to what this version needs; the message says why."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> bytes:
        """Digest of the text, by which a later change is noticed."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def transactional(self) -> bool:
        """Whether it runs in one transaction."""
        return not self.text.startswith("-- no transaction")


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files in order; MigrationError on a wrong name or a number used twice."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        if not number.isdecimal() or not name:
            raise MigrationError(f"migration {path.name}: the name is not NNNN_what.sql")
        if int(number) in found:
            raise MigrationError(f"migration {path.name}: the number is used twice")
        found[int(number)] = Migration(int(number), name, path.read_text(encoding="utf-8"))
    return [found[version] for version in sorted(found)]


def migrate(
    dsn: str,
    extra_tags: Mapping[Level, tuple[str, ...]] | None = None,
    *,
    connect_seconds: float = 10,
    folder: Path = FOLDER,
) -> list[str]:
    """Apply what is missing; returns the names applied. Safe to run from several places at once.

    `extra_tags`: the configured `search.*_tags`, for which indexes are made (without stopping writers).
    """
    applied = []
    with psycopg.connect(**parameters(dsn, connect_seconds), autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        _hold_migration_lock(connection)
        connection.execute(_TABLE)
        known = _applied(connection)
        for migration in migrations(folder):
            if migration.version in known:
                if known[migration.version] != migration.sha256:
                    raise MigrationError(
                        f"migration {migration.version:04} was changed after it was applied: "
                        "restore the file and write the change as a new migration"
                    )
                continue
            _apply(connection, migration)
            applied.append(f"{migration.version:04}_{migration.name}")
        for statement in extra_index_statements(dict(extra_tags or {})):
            _patiently(connection, statement, f"index for a search tag: {statement[:60]}")
    return applied


def require_schema(pool: Pool, folder: Path = FOLDER) -> None:
    """Return if the schema is at least as new as this version needs; otherwise MigrationError.

    A newer schema is fine: migrations are additive first.
    """
    with pool.connection() as connection:
        try:
            known = _applied(connection)
        except psycopg.errors.UndefinedTable:
            known = {}
    missing = [migration for migration in migrations(folder) if migration.version not in known]
    if missing:
        raise MigrationError(
            f"the catalog lacks migration {missing[0].version:04}_{missing[0].name}: run `stele migrate`"
        )


def _applied(connection: Connection) -> dict[int, bytes]:
    rows = connection.execute("SELECT version, sha256 FROM schema_migrations").fetchall()
    return {int(version): bytes(sha256) for version, sha256 in rows}


def _hold_migration_lock(connection: Connection) -> None:
    """Take the lock that lets one migration run at a time; it ends with the connection."""
    deadline = time.monotonic() + 600
    query = "SELECT pg_try_advisory_lock(%s)"
    # Tried, not waited for: a waiting statement keeps a snapshot that CREATE INDEX CONCURRENTLY waits for.
    while connection.execute(query, (lock_key("migrate", ""),)).fetchone() != (True,):
        if time.monotonic() > deadline:
            raise MigrationError("another migration has been running for ten minutes")
        time.sleep(PAUSE_SECONDS)


def _apply(connection: Connection, migration: Migration) -> None:
    label = f"migration {migration.version:04}_{migration.name}"
    if migration.transactional:
        _patiently(connection, migration.text, label, migration)
        return
    for statement in statements(migration.text):
        _patiently(connection, statement, label)
    _record(connection, migration)


def _patiently(connection: Connection, command: str, label: str, migration: Migration | None = None) -> None:
    """Run the command; on a lock time-out begin again. With `migration`: in a transaction with its
    record."""
    for _ in range(ATTEMPTS):
        try:
            with connection.transaction() if migration else nullcontext():
                connection.execute(command.encode())
                if migration is not None:
                    _record(connection, migration)
            return
        except psycopg.errors.LockNotAvailable:
            time.sleep(PAUSE_SECONDS)
        except psycopg.Error as error:
            raise MigrationError(f"{label}: {error}") from error
    raise MigrationError(f"{label}: a table was in use the whole time; try again")


def _record(connection: Connection, migration: Migration) -> None:
    connection.execute(
        "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
        (migration.version, migration.name, migration.sha256),
    )


def statements(text: str) -> list[str]:
    """The statements of a `-- no transaction` file: each ends with a semicolon at the end of a line."""
    found, lines = [], []
    for line in text.splitlines():
        if line.strip().startswith("--"):
            continue
        lines.append(line)
        if line.rstrip().endswith(";"):
            found.append("\n".join(lines).strip())
            lines = []
    if "".join(lines).strip():
        raise MigrationError("a statement does not end with a semicolon at the end of a line")
    return found
