"""The catalog's instances: admitted, found, removed, and their series' prepared metadata.

Reading many rows never keeps a transaction open while the caller works: keys first, then rows in
batches, each a statement of its own. Rows do not change, so the batches fit together; what was removed
meanwhile is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from node.adapters.catalog_postgres.admission import admit, find
from node.adapters.catalog_postgres.audits import write_event
from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.pool import CatalogConnection, Pool
from node.adapters.catalog_postgres.rows import INSTANCE_COLUMNS, stored_instance
from node.adapters.catalog_postgres.scopes import JOINED, ORDER, union
from node.domain.errors import Reason, Refusal
from node.domain.model import (
    Admission,
    AuditEvent,
    InstanceRecord,
    Scope,
    StoredInstance,
    StoredObject,
)

BATCH_ROWS = 500
BATCH_HEADER_BYTES = 4 << 20

_VERSION = """
SELECT series_pk || '.' || count(*) || '.' || max(instance_pk) || '.' || sum(instance_pk), count(*)
FROM instances WHERE series_pk = (SELECT series_pk FROM series WHERE series_uid = %(series_uid)s)
GROUP BY series_pk
"""

_PREPARE = """
INSERT INTO series_metadata (series_uid, version, metadata)
VALUES (%(series_uid)s, %(version)s, %(metadata)b)
ON CONFLICT (series_uid) DO UPDATE
SET version = excluded.version, metadata = excluded.metadata, prepared_at = now()
"""

_UNPREPARED = """
SELECT series_uid FROM series, LATERAL (
    SELECT received_at FROM instances WHERE instances.series_pk = series.series_pk
    ORDER BY instance_pk DESC LIMIT 1
) AS newest
WHERE NOT prepared AND newest.received_at < now() - make_interval(secs => %s)
ORDER BY series_pk LIMIT %s
"""

_EMPTY_ABOVE = (
    """
    UPDATE series SET prepared = false WHERE series_pk = ANY (%(series)s) AND prepared
    """,
    """
    WITH gone AS (
        DELETE FROM series WHERE series_pk = ANY (%(series)s)
        AND NOT EXISTS (SELECT FROM instances WHERE instances.series_pk = series.series_pk)
        RETURNING series_uid
    )
    DELETE FROM series_metadata USING gone WHERE series_metadata.series_uid = gone.series_uid
    """,
    """
    DELETE FROM studies WHERE study_uid = ANY (%(studies)s)
    AND NOT EXISTS (SELECT FROM series WHERE series.study_pk = studies.study_pk)
    """,
    """
    DELETE FROM patients WHERE patient_key = ANY (%(patients)s)
    AND NOT EXISTS (SELECT FROM studies WHERE studies.patient_pk = patients.patient_pk)
    """,
)


class PostgresInstances:
    """`node.ports.Instances` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def admit(self, record: InstanceRecord, event: AuditEvent) -> tuple[Admission, StoredInstance]:
        """Record an instance and its audit event in one transaction; see `admission`."""
        return admit(self._pool, record, event)

    def find(self, sop_instance_uid: str) -> StoredInstance | None:
        """The instance's row, or None."""
        return find(self._pool, sop_instance_uid)

    def select(self, scopes: Sequence[Scope], event: AuditEvent | None = None) -> list[StoredInstance]:
        """All instances in any of the scopes, each once, ordered; the event tells of what was found."""
        if event is None:
            with self._pool.connection() as connection:
                return _select(connection, scopes)
        with self._pool.transaction() as connection:
            found = _select(connection, scopes)
            write_event(connection, _telling_of(event, found))
        return found

    def repoint(self, sop_instance_uid: str, stored: StoredObject, event: AuditEvent) -> None:
        """Let the row refer to another copy of the same bytes; the former object becomes surplus."""
        with self._pool.transaction() as connection:
            row = connection.execute(
                "SELECT digest, object_name FROM instances WHERE sop_instance_uid = %s FOR UPDATE",
                (sop_instance_uid,),
            ).fetchone()
            if row is None:
                raise Refusal(Reason.NOT_FOUND, "no such instance")
            if bytes(row[0]) != stored.digest:
                raise Refusal(Reason.CONFLICT, "another digest than the row's")
            connection.execute(
                "UPDATE instances SET object_name = %s, prefix_length = %s, dataset_length = %s"
                " WHERE sop_instance_uid = %s",
                (stored.name, stored.prefix_length, stored.dataset_length, sop_instance_uid),
            )
            if row[1] != stored.name:
                _hand_over(connection, [row[1]])
            write_event(connection, event)

    def headers(self, scope: Scope) -> Iterator[tuple[StoredInstance, bytes]]:
        """Instances in scope with their packed headers, streamed in `select`'s order."""
        if scope.instance_uid is not None:  # one row, in one go
            query, parameters = union([scope], f"{INSTANCE_COLUMNS}, header")
            with self._pool.connection() as connection:
                row = connection.execute(query.encode(), parameters, binary=True).fetchone()
            if row is not None:
                yield stored_instance(row), bytes(row[-1])
            return
        inner, parameters = union([scope], "instance_pk")
        query = (
            f"SELECT instance_pk, octet_length(header) FROM {JOINED}"  # noqa: S608
            f" WHERE instance_pk IN ({inner}) ORDER BY {ORDER}"
        )
        with self._pool.connection() as connection:
            keys = connection.execute(query.encode(), parameters).fetchall()
        for batch in _batches(keys):
            yield from self._headers(batch)

    def _headers(self, keys: list[int]) -> list[tuple[StoredInstance, bytes]]:
        query = (
            f"SELECT {INSTANCE_COLUMNS}, header FROM unnest(%b::bigint[]) WITH ORDINALITY"  # noqa: S608
            f" AS wanted (instance_pk, place) JOIN ({JOINED}) USING (instance_pk) ORDER BY place"
        )
        with self._pool.connection() as connection:
            rows = connection.execute(query.encode(), (keys,), binary=True).fetchall()
        return [(stored_instance(row), bytes(row[-1])) for row in rows]

    def remove(self, scope: Scope, event: AuditEvent) -> list[StoredInstance]:
        """Take the instances in scope, and what became empty above them, out of the catalog."""
        with self._pool.transaction() as connection:
            affected = _lock(connection, scope)
            # A study of the patient's that came after the locks were taken is not ours to touch.
            found = _select(connection, [replace(scope, study_uid=uid) for uid in affected["studies"]])
            if found:
                uids = [instance.sop_instance_uid for instance in found]
                rows = connection.execute(
                    "DELETE FROM instances WHERE sop_instance_uid = ANY (%s)"
                    " RETURNING series_pk, object_name",
                    (uids,),
                ).fetchall()
                # What the rows name now: a repair may just have repointed one.
                _hand_over(connection, [name for _, name in rows])
                above = {"series": list({key for key, _ in rows}), **affected}
                for statement in _EMPTY_ABOVE:
                    connection.execute(statement.encode(), above)
            outcome = event.outcome if found else Reason.NOT_FOUND.value
            write_event(connection, _telling_of(replace(event, outcome=outcome), found, scope))
        return found

    def names(self) -> Iterator[tuple[str, StoredInstance]]:
        """Every object name that a row refers to, with its row, in batches by key.

        A row that is committed while this runs may be left out.
        """
        query = (
            f"SELECT {INSTANCE_COLUMNS}, instance_pk FROM {JOINED}"  # noqa: S608
            f" WHERE instance_pk > %s ORDER BY instance_pk LIMIT {BATCH_ROWS}"
        )
        after = 0
        while True:
            with self._pool.connection() as connection:
                rows = connection.execute(query.encode(), (after,)).fetchall()
            for row in rows:
                instance = stored_instance(row)
                yield instance.stored.name, instance
            if len(rows) < BATCH_ROWS:
                return
            after = rows[-1][-1]

    def refers_to(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that some row refers to."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT object_name FROM instances WHERE object_name = ANY (%s)", (list(names),)
            ).fetchall()
        return {str(row[0]) for row in rows}

    def series_of(self, study_uid: str) -> list[str]:
        """See the port."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT series_uid FROM series JOIN studies USING (study_pk) WHERE study_uid = %s"
                " ORDER BY series_number NULLS LAST, series_uid",
                (study_uid,),
            ).fetchall()
        return [row[0] for row in rows]

    def series_version(self, series_uid: str) -> tuple[str, int] | None:
        """(opaque version, number of instances) of a series now; None if unknown.

        Number, newest and sum of the rows' keys: keys are never used twice, so none of adding,
        removing and replacing leaves all three as they were.
        """
        with self._pool.connection() as connection:
            row = connection.execute(_VERSION, {"series_uid": series_uid}).fetchone()
        return (str(row[0]), int(row[1])) if row else None

    def prepared(self, series_uid: str) -> tuple[str, bytes] | None:
        """The prepared series metadata as (version, gzip-compressed JSON array), or None."""
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT version, metadata FROM series_metadata WHERE series_uid = %s",
                (series_uid,),
                binary=True,
            ).fetchone()
        return (str(row[0]), bytes(row[1])) if row else None

    def prepare(self, series_uid: str, version: str, metadata: bytes) -> None:
        """Keep prepared metadata for `version`; nothing happens if the series is gone meanwhile."""
        parameters = {"series_uid": series_uid, "version": version, "metadata": metadata}
        with self._pool.transaction() as connection:
            row = connection.execute(
                "SELECT study_uid FROM series JOIN studies USING (study_pk) WHERE series_uid = %s",
                (series_uid,),
            ).fetchone()
            if row is None:
                return
            # Nobody adds or removes while the version is compared and noted.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock_key("study", row[0]),))
            current = connection.execute(_VERSION, parameters).fetchone()
            if current is None:
                return
            connection.execute(_PREPARE, parameters)
            connection.execute(
                "UPDATE series SET prepared = %s WHERE series_uid = %s", (current[0] == version, series_uid)
            )

    def unprepared(self, quiet_seconds: float, limit: int) -> list[str]:
        """Series UIDs without current prepared metadata that have been quiet for so long."""
        with self._pool.connection() as connection:
            rows = connection.execute(_UNPREPARED, (quiet_seconds, limit)).fetchall()
        return [str(row[0]) for row in rows]


def _select(connection: CatalogConnection, scopes: Sequence[Scope]) -> list[StoredInstance]:
    if not scopes:
        return []
    inner, parameters = union(scopes, "instance_pk")
    query = f"SELECT {INSTANCE_COLUMNS} FROM {JOINED} WHERE instance_pk IN ({inner}) ORDER BY {ORDER}"  # noqa: S608
    return [stored_instance(row) for row in connection.execute(query.encode(), parameters)]


def _batches(keys: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Keys with their headers' sizes, in order, as batches of bounded size."""
    batch: list[int] = []
    size = 0
    for key, length in keys:
        if batch and (len(batch) == BATCH_ROWS or size + length > BATCH_HEADER_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(key)
        size += length
    if batch:
        yield batch


def _lock(connection: CatalogConnection, scope: Scope) -> dict[str, list[str]]:
    """Hold the scope's studies, then their patients, exclusively until the transaction ends."""
    inner, parameters = union([scope], "studies.study_uid, patients.patient_key")
    rows = connection.execute(f"SELECT DISTINCT * FROM ({inner}) AS found".encode(), parameters).fetchall()  # noqa: S608
    affected = {"studies": sorted({row[0] for row in rows}), "patients": sorted({row[1] for row in rows})}
    for kind, names in (("study", affected["studies"]), ("patient", affected["patients"])):
        for key in sorted(lock_key(kind, name) for name in names):
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
    return affected


def _hand_over(connection: CatalogConnection, names: list[str]) -> None:
    connection.execute(
        "INSERT INTO surplus (object_name) SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING", (names,)
    )


def _telling_of(event: AuditEvent, found: Sequence[StoredInstance], scope: Scope | None = None) -> AuditEvent:
    """The event with the studies and the number of instances that it was about."""
    studies = dict.fromkeys([*event.study_uids, *(instance.study_uid for instance in found)])
    detail: dict[str, Any] = {**event.detail, "instances": len(found)}
    if scope is not None:
        uids = {"study": scope.study_uid, "series": scope.series_uid, "instance": scope.instance_uid}
        detail.update({f"{name}_uid": uid for name, uid in uids.items() if uid is not None})
    return replace(event, study_uids=tuple(studies), detail=detail)
