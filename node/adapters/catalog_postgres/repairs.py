"""Damage to the catalog's own rows, found and mended; and what the audit trail knows of an instance.

Counts are counted when they are asked for, so a study with wrong counts is one of two things: an instance
whose row hangs below no series, or below a series of another study (instances have no foreign key; see
`migrations/0001_catalog.sql`), or a row above with nothing below it. Admissions and removals make neither,
and each query here is one statement, so one snapshot: writers at work cause no false alarm.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import sql

from node.adapters.catalog_postgres.audits import write_event
from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.pool import CatalogConnection, Pool
from node.adapters.catalog_postgres.rows import (
    json_text,
    patient_columns,
    series_columns,
    study_columns,
)
from node.domain.errors import Reason, Refusal
from node.domain.model import AuditEvent, InstanceRecord, Level, StoredObject

BATCH_ROWS = 200

_MISPLACED = """
SELECT object_name, prefix_length, dataset_length, digest, header, instance_pk
FROM instances LEFT JOIN series USING (series_pk)
WHERE series.study_pk IS DISTINCT FROM instances.study_pk AND instance_pk > %s
ORDER BY instance_pk LIMIT %s
"""

_PLACE = """
UPDATE instances SET series_pk = series.series_pk, study_pk = series.study_pk
FROM series JOIN studies USING (study_pk)
WHERE sop_instance_uid = %(sop_instance_uid)s AND series_uid = %(series_uid)s AND study_uid = %(study_uid)s
RETURNING series.series_pk
"""

_HOLLOW = {
    Level.SERIES: """
        SELECT series_pk, series_uid FROM series
        WHERE NOT EXISTS (SELECT FROM instances WHERE instances.series_pk = series.series_pk)
        ORDER BY series_pk
    """,
    Level.STUDY: """
        SELECT study_pk, study_uid FROM studies
        WHERE NOT EXISTS (SELECT FROM series WHERE series.study_pk = studies.study_pk)
        ORDER BY study_pk
    """,
    Level.PATIENT: """
        SELECT patient_pk, patient_pk::text AS name FROM patients
        WHERE NOT EXISTS (SELECT FROM studies WHERE studies.patient_pk = patients.patient_pk)
        ORDER BY patients.patient_pk
    """,
}

# What to lock, by the row's key: admissions hold the same shared (see `admission`)
_LOCKS = {
    Level.SERIES: (
        "study",
        "SELECT study_uid FROM series JOIN studies USING (study_pk) WHERE series_pk = %s",
    ),
    Level.STUDY: ("study", "SELECT study_uid FROM studies WHERE study_pk = %s"),
    Level.PATIENT: ("patient", "SELECT patient_key FROM patients WHERE patient_pk = %s"),
}

_DROP = {
    Level.SERIES: """
        WITH gone AS (
            DELETE FROM series WHERE series_pk = %(key)s
            AND NOT EXISTS (SELECT FROM instances WHERE instances.series_pk = series.series_pk)
            RETURNING series_uid
        ), metadata AS (
            DELETE FROM series_metadata USING gone WHERE series_metadata.series_uid = gone.series_uid
        )
        SELECT FROM gone
    """,
    Level.STUDY: """
        DELETE FROM studies WHERE study_pk = %(key)s
        AND NOT EXISTS (SELECT FROM series WHERE series.study_pk = studies.study_pk) RETURNING study_pk
    """,
    Level.PATIENT: """
        DELETE FROM patients WHERE patient_pk = %(key)s
        AND NOT EXISTS (SELECT FROM studies WHERE studies.patient_pk = patients.patient_pk)
        RETURNING patient_pk
    """,
}

# A deletion's event names its scope: all of it, or one series or instance of the study.
_DELETED = """
SELECT EXISTS (
    SELECT FROM audit_events
    WHERE action IN ('delete', 'rebuild') AND action = 'delete' AND outcome = 'success'
      AND study_uids @> ARRAY[%(study_uid)s::text] AND at >= now() - make_interval(secs => %(age_seconds)s)
      AND coalesce(detail ->> 'series_uid', %(series_uid)s) = %(series_uid)s
      AND coalesce(detail ->> 'instance_uid', %(instance_uid)s) = %(instance_uid)s
)
"""

_REBUILT = """
SELECT EXISTS (
    SELECT FROM audit_events
    WHERE action IN ('delete', 'rebuild') AND action = 'rebuild' AND outcome = 'success'
      AND study_uids @> ARRAY[%(study_uid)s::text] AND at >= now() - make_interval(secs => %(age_seconds)s)
      AND detail ->> 'instance_uid' = %(instance_uid)s
)
"""


class PostgresRepairs:
    """`node.ports.Repairs` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def misplaced(self) -> Iterator[tuple[StoredObject, bytes]]:
        """Instances whose rows do not hang below a series and the study of that series, by key."""
        after = 0
        while True:
            with self._pool.connection() as connection:
                rows = connection.execute(_MISPLACED.encode(), (after, BATCH_ROWS)).fetchall()
            for row in rows:
                yield StoredObject(row[0], row[1], row[2], bytes(row[3])), bytes(row[4])
            if len(rows) < BATCH_ROWS:
                return
            after = rows[-1][-1]

    def place(self, record: InstanceRecord, event: AuditEvent) -> None:
        """Hang an instance's row below its record's series and study; see the port."""
        patient = {**patient_columns(record), "attributes": json_text(record.patient)}
        uids = {
            "sop_instance_uid": record.sop_instance_uid,
            "series_uid": record.series_uid,
            "study_uid": record.study_uid,
        }
        with self._pool.transaction() as connection:
            former = connection.execute(
                "SELECT series_pk, study_uid FROM instances LEFT JOIN studies USING (study_pk)"
                " WHERE sop_instance_uid = %s",
                (record.sop_instance_uid,),
            ).fetchone()
            if former is None:
                raise Refusal(Reason.NOT_FOUND, "no such instance")
            _lock(connection, "study", [record.study_uid, *([former[1]] if former[1] else [])])
            _lock(connection, "patient", [patient["patient_key"]])
            _add_above(connection, record, patient)
            placed = connection.execute(_PLACE, uids).fetchone()
            if placed is None:
                raise Refusal(Reason.MISMATCH, "the series exists in another study")
            connection.execute(
                "UPDATE series SET prepared = false WHERE series_pk = ANY (%s) AND prepared",
                ([former[0], placed[0]],),
            )
            write_event(connection, event)

    def hollow(self, level: Level) -> list[tuple[int, str]]:
        """Rows of a level with nothing below them, as (key, name)."""
        with self._pool.connection() as connection:
            rows = connection.execute(_HOLLOW[level].encode()).fetchall()
        return [(int(key), str(name)) for key, name in rows]

    def drop_hollow(self, level: Level, key: int, event: AuditEvent) -> bool:
        """Remove such a row if there is still nothing below it."""
        kind, name_of = _LOCKS[level]
        with self._pool.transaction() as connection:
            row = connection.execute(name_of.encode(), (key,)).fetchone()
            if row is None:
                return False
            _lock(connection, kind, [row[0]])
            if connection.execute(_DROP[level].encode(), {"key": key}).fetchone() is None:
                return False
            write_event(connection, event)
        return True

    def source_of(self, sop_instance_uid: str) -> str:
        """The AE title or account that an instance came from. Refusal(NOT_FOUND)."""
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT source FROM instances WHERE sop_instance_uid = %s", (sop_instance_uid,)
            ).fetchone()
        if row is None:
            raise Refusal(Reason.NOT_FOUND, "no such instance")
        return str(row[0])

    def deleted_since(self, record: InstanceRecord, age_seconds: float) -> bool:
        """Whether the audit trail has a deletion of the record's instance in the last `age_seconds`."""
        return self._told(_DELETED, record, age_seconds)

    def rebuilt_since(self, record: InstanceRecord, age_seconds: float) -> bool:
        """Whether it has the instance made anew from an object in the last `age_seconds`."""
        return self._told(_REBUILT, record, age_seconds)

    def _told(self, query: str, record: InstanceRecord, age_seconds: float) -> bool:
        parameters = {
            "study_uid": record.study_uid,
            "series_uid": record.series_uid,
            "instance_uid": record.sop_instance_uid,
            "age_seconds": age_seconds,
        }
        with self._pool.connection() as connection:
            row = connection.execute(query.encode(), parameters).fetchone()
        return row == (True,)


def _lock(connection: CatalogConnection, kind: str, names: Sequence[str]) -> None:
    """Hold these exclusively until the transaction ends, in the order of `locks`."""
    for key in sorted({lock_key(kind, name) for name in names}):
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))


def _add_above(connection: CatalogConnection, record: InstanceRecord, patient: dict[str, Any]) -> None:
    """The rows above an instance, as far as they are missing; an existing study keeps its patient."""
    study = {**study_columns(record), "attributes": json_text(record.study)}
    series = {**series_columns(record), "attributes": json_text(record.series)}
    found = connection.execute("SELECT FROM studies WHERE study_uid = %s", (record.study_uid,)).fetchone()
    if found is None:
        _add(connection, "patients", patient)
        study["patient_pk"] = _key(connection, "patients", "patient_pk", "patient_key", patient)
        _add(connection, "studies", study)
    series["study_pk"] = _key(connection, "studies", "study_pk", "study_uid", study)
    _add(connection, "series", series)


def _add(connection: CatalogConnection, table: str, values: dict[str, Any]) -> None:
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT DO NOTHING").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join([sql.Placeholder()] * len(values)),
    )
    connection.execute(statement, list(values.values()))


def _key(connection: CatalogConnection, table: str, key: str, name: str, values: dict[str, Any]) -> int:
    statement = sql.SQL("SELECT {} FROM {} WHERE {} = %s").format(
        sql.Identifier(key), sql.Identifier(table), sql.Identifier(name)
    )
    row = connection.execute(statement, (values[name],)).fetchone()
    assert row is not None  # noqa: S101 - it was there or has been added, and is locked
    return int(row[0])
