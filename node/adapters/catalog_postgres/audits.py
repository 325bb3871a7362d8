"""The audit trail: rows appended by everybody, sealed into a hash chain by one worker at a time.

A row is written in the transaction of what it tells of and never touched again. It carries its
transaction's number; once a number lies below every running transaction's (`pg_snapshot_xmin`), no row
with it can appear any more, so the rows between two such bounds are a closed set, and can be hashed
without stopping a writer. A seal is

    hash = SHA-256(former seal's hash, then of each row in order: length as 8 bytes, canonical JSON)

so a row that is changed, removed or added later, and a seal that is changed or removed, breaks the
chain. What no chain can show by itself is the removal of its newest end: that is what shipping the
seals to a collector is for.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import psycopg

from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.pool import CatalogConnection, Pool
from node.adapters.catalog_postgres.rows import json_text
from node.domain.model import AuditEvent

BATCH_EVENTS = 5000  # per seal and transaction, give or take one transaction's rows
FETCH_ROWS = 1000

INSERT_EVENT = """
INSERT INTO audit_events (action, outcome, actor, address, protocol, study_uids, detail)
VALUES (%(action)s, %(outcome)s, %(actor)s, %(address)s, %(protocol)s, %(study_uids)s::text[],
        %(detail)s::jsonb)
"""

_EVENTS = """
SELECT txid::text, event_id, at, action, outcome, actor, address, protocol, study_uids, detail
FROM audit_events WHERE txid >= %s::xid8 AND txid < %s::xid8 ORDER BY txid, event_id
"""

# The bound of the next batch: just above the transaction of its last row, and never above xmin.
_BOUND = """
SELECT coalesce(
    (SELECT (txid::text::numeric + 1)::text FROM audit_events
     WHERE txid >= %(from)s::xid8 AND txid < pg_snapshot_xmin(pg_current_snapshot())
     ORDER BY txid, event_id OFFSET %(batch)s - 1 LIMIT 1),
    pg_snapshot_xmin(pg_current_snapshot())::text
)
"""

Row = tuple[Any, ...]


class AuditChainError(Exception):
    """The chain cannot go on; the message says why and what to do."""


def event_parameters(event: AuditEvent) -> dict[str, Any]:
    """The parameters of INSERT_EVENT."""
    return {
        "action": event.action,
        "outcome": event.outcome,
        "actor": event.actor.name.replace("\x00", ""),
        "address": event.actor.address,
        "protocol": event.actor.protocol,
        "study_uids": [uid.replace("\x00", "") for uid in event.study_uids],
        "detail": json_text(event.detail),
    }


def write_event(connection: CatalogConnection, event: AuditEvent) -> None:
    """Append the event in the connection's current transaction."""
    connection.execute(INSERT_EVENT, event_parameters(event))


class PostgresAudits:
    """`node.ports.Audits` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def record(self, event: AuditEvent) -> None:
        """Write an event of its own, durable on return."""
        with self._pool.transaction() as connection:
            write_event(connection, event)

    def seal(self) -> int:
        """Seal every row whose transaction has ended; returns how many.

        One transaction per batch. Returns 0 at once while another worker is sealing. AuditChainError.
        """
        total = 0
        while True:
            events = self._seal_batch()
            total += events
            if events < BATCH_EVENTS:
                return total

    def _seal_batch(self) -> int:
        with self._pool.transaction() as connection:
            key = lock_key("seal", "")
            row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (key,)).fetchone()
            if row != (True,):
                return 0
            seal_id, start, former = _newest_seal(connection)
            row = connection.execute(_BOUND, {"from": start, "batch": BATCH_EVENTS}).fetchone()
            bound = str(row[0]) if row else start
            if int(bound) < int(start):
                raise AuditChainError(
                    f"the server's transaction numbers ({bound}) are behind the audit chain ({start}): the "
                    "catalog was restored from a dump. Stop the server and raise its counter: pg_resetwal "
                    "--epoch and --next-transaction-id"
                )
            count, digest = _digest(connection, former, start, bound)
            if count:
                connection.execute(
                    "INSERT INTO audit_seals (seal_id, below_txid, events, hash)"
                    " VALUES (%s, %s::xid8, %s, %b)",
                    (seal_id + 1, bound, count, digest),
                )
            return count

    def verify(self) -> list[str]:
        """Walk the whole chain, in one snapshot; returns what is wrong with it, [] if nothing."""
        wrong: list[str] = []
        with self._pool.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            connection.execute("SET LOCAL statement_timeout = 0")
            former, start = b"", "0"
            seals = connection.execute(
                "SELECT seal_id, below_txid::text, events, hash FROM audit_seals ORDER BY seal_id"
            )
            for expected, (seal_id, below, events, kept) in enumerate(seals.fetchall(), 1):
                if seal_id != expected:
                    return [*wrong, f"seal {expected} is missing"]
                if int(below) <= int(start):
                    return [*wrong, f"seal {seal_id} does not follow the former one"]
                count, digest = _digest(connection, former, start, below)
                if count != events:
                    wrong.append(f"seal {seal_id} covers {events} events, but {count} are there")
                elif digest != bytes(kept):
                    wrong.append(f"seal {seal_id} does not fit its events: an event or a seal was changed")
                # Go on from what is kept, so that one damage is reported once.
                former, start = bytes(kept), below
        return wrong

    def unsealed(self) -> tuple[int, float]:
        """(rows not yet sealed, age in seconds of the oldest)."""
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT count(*), extract(epoch FROM clock_timestamp() - min(at))::float8"
                " FROM audit_events WHERE txid >= coalesce("
                " (SELECT below_txid FROM audit_seals ORDER BY seal_id DESC LIMIT 1), '0'::xid8)"
            ).fetchone()
        return (int(row[0]), max(0.0, float(row[1] or 0))) if row else (0, 0.0)


def canonical(row: Row) -> bytes:
    """An event as the chain hashes it: JSON with sorted keys, without blanks, times in UTC."""
    txid, event_id, at, action, outcome, actor, address, protocol, study_uids, detail = row
    value = {
        "txid": txid,
        "event_id": event_id,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        "action": action,
        "outcome": outcome,
        "actor": actor,
        "address": address,
        "protocol": protocol,
        "study_uids": study_uids,
        "detail": detail,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _newest_seal(connection: CatalogConnection) -> tuple[int, str, bytes]:
    row = connection.execute(
        "SELECT seal_id, below_txid::text, hash FROM audit_seals ORDER BY seal_id DESC LIMIT 1"
    ).fetchone()
    return (int(row[0]), str(row[1]), bytes(row[2])) if row else (0, "0", b"")


def _digest(connection: CatalogConnection, former: bytes, start: str, below: str) -> tuple[int, bytes]:
    """(number of events, hash) of the events in [start, below) on top of the former hash."""
    count, sha256 = 0, hashlib.sha256(former)
    for row in _streamed(connection, _EVENTS, (start, below)):
        text = canonical(row)
        sha256.update(len(text).to_bytes(8, "big"))
        sha256.update(text)
        count += 1
    return count, sha256.digest()


def _streamed(connection: CatalogConnection, query: str, parameters: tuple[Any, ...]) -> Iterator[Row]:
    """The rows of a query inside a transaction, a bounded number of them in memory."""
    cursor: psycopg.ServerCursor[Row]
    with connection.cursor(name="events") as cursor:
        cursor.itersize = FETCH_ROWS
        cursor.execute(query.encode(), parameters)
        yield from cursor
