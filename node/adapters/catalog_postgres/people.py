"""Accounts with their sessions, and application entities."""

from dataclasses import asdict

from psycopg.types.json import Jsonb

from node.adapters.catalog_postgres.audits import write_event
from node.adapters.catalog_postgres.pool import Pool
from node.domain.model import Account, ApplicationEntity, AuditEvent, Role


class PostgresAccounts:
    """`node.ports.Accounts` on PostgreSQL. Secrets come in as hashes."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def add(self, name: str, password_hash: str | None, role: Role, event: AuditEvent) -> None:
        """Create or replace an account; replacing ends its sessions."""
        with self._pool.transaction() as connection:
            connection.execute(
                "INSERT INTO accounts (name, role, password_hash) VALUES (%s, %s, %s)"
                " ON CONFLICT (name) DO UPDATE SET role = excluded.role,"
                " password_hash = excluded.password_hash",
                (name, role.value, password_hash),
            )
            connection.execute("DELETE FROM sessions WHERE name = %s", (name,))
            write_event(connection, event)

    def password_hash(self, name: str) -> tuple[Account, str | None] | None:
        """The account with its hash, or None if there is no such account."""
        if "\x00" in name:
            return None
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT name, role, password_hash FROM accounts WHERE name = %s", (name,)
            ).fetchone()
        return (Account(row[0], Role(row[1])), row[2]) if row else None

    def open_session(self, name: str, token_sha256: bytes, seconds: float, event: AuditEvent) -> None:
        """Keep a session, or with seconds=0 a token without end. The account's ended ones go."""
        with self._pool.transaction() as connection:
            connection.execute(
                "DELETE FROM sessions WHERE name = %s AND expires_at < clock_timestamp()", (name,)
            )
            connection.execute(
                "INSERT INTO sessions (token_sha256, name, expires_at) VALUES (%s, %s,"
                " clock_timestamp() + make_interval(secs => nullif(%s::float8, 0)))",
                (token_sha256, name, seconds),
            )
            write_event(connection, event)

    def session(self, token_sha256: bytes) -> Account | None:
        """Whose live session or token this is."""
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT name, role FROM sessions JOIN accounts USING (name) WHERE token_sha256 = %s"
                " AND (expires_at IS NULL OR expires_at > clock_timestamp())",
                (token_sha256,),
            ).fetchone()
        return Account(row[0], Role(row[1])) if row else None

    def close_session(self, token_sha256: bytes, event: AuditEvent) -> None:
        """End a session or revoke a token."""
        with self._pool.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE token_sha256 = %s", (token_sha256,))
            write_event(connection, event)


class PostgresEntities:
    """`node.ports.Entities` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def put(self, entity: ApplicationEntity, event: AuditEvent) -> None:
        """Create or replace."""
        settings = {name: value for name, value in asdict(entity).items() if name != "title"}
        with self._pool.transaction() as connection:
            connection.execute(
                "INSERT INTO entities (title, settings) VALUES (%s, %s)"
                " ON CONFLICT (title) DO UPDATE SET settings = excluded.settings",
                (entity.title, Jsonb(settings)),
            )
            write_event(connection, event)

    def drop(self, title: str, event: AuditEvent) -> bool:
        """Remove; False if it was not there."""
        with self._pool.transaction() as connection:
            gone = connection.execute("DELETE FROM entities WHERE title = %s", (title,)).rowcount
            write_event(connection, event)
        return gone > 0

    def all(self) -> list[ApplicationEntity]:
        """All, by title."""
        with self._pool.connection() as connection:
            rows = connection.execute('SELECT title, settings FROM entities ORDER BY title COLLATE "C"')
            return [_entity(*row) for row in rows]


def _entity(title: str, settings: dict[str, object]) -> ApplicationEntity:
    """From its row; settings that a newer version added are left out, missing ones have defaults."""
    known = {name: value for name, value in settings.items() if name in ApplicationEntity.__slots__}
    sources = known.pop("sources", ())
    return ApplicationEntity(
        title=title,
        sources=tuple(sources) if isinstance(sources, list) else (),
        **known,  # type: ignore[arg-type]
    )
