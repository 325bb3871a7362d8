"""Admitting an instance: the one write that everything waits for.

Usual way, one round trip: `_ADMIT`, a statement that commits by itself. It takes the shared lock on the
study, finds the series below its study, inserts the instance or finds that one is there, and writes the
audit row that tells which. If there is no such series, it does nothing, and the long way follows: the
same behind the rows above the instance, whoever comes first creating them.

What holds, whoever races:

* The first to commit a SOP Instance UID wins. Equal bytes later are a DUPLICATE: the row is written
  again, so that the commit waits for the standby like the first one did. Other bytes are a CONFLICT:
  the audit row commits, the row in force stays, and nothing is left above it (savepoint).
* No study without an instance and no instance without a study: a removal holds the study's lock (and
  the patient's) exclusively, an admission holds them shared, from before it looks until it commits.
* The first wins for the rows above, too. A study that arrives again under another patient stays with
  its patient; the instance is accepted, since refusing it would lose it, and the audit row says
  `other_patient`. A series UID that exists in another study is refused (MISMATCH): it is one series or
  the other, and the sender has to say which.
"""

from dataclasses import replace
from typing import Any

from node.adapters.catalog_postgres.audits import event_parameters, write_event
from node.adapters.catalog_postgres.locks import lock_key
from node.adapters.catalog_postgres.pool import COMMIT_SECONDS, Pool, hang_up_after
from node.adapters.catalog_postgres.rows import (
    INSTANCE_COLUMNS,
    instance_columns,
    json_text,
    patient_columns,
    series_columns,
    stored_instance,
    study_columns,
)
from node.adapters.catalog_postgres.scopes import JOINED
from node.domain.errors import Reason, Refusal
from node.domain.model import Admission, AuditEvent, InstanceRecord, StoredInstance

ATTEMPTS = 5  # how often rows may vanish or appear under our hands before we give up

_SHARED_LOCK = "SELECT pg_advisory_xact_lock_shared(%s)"

# In the order of the function's arguments (migration 0004)
_ADMIT = """
SELECT * FROM admit_instance_1(
    %(lock)s, %(patient_key)s, %(study_uid)s, %(series_uid)s, %(sop_instance_uid)s, %(sop_class_uid)s,
    %(transfer_syntax_uid)s, %(instance_number)s, %(number_of_frames)s, %(instance)s, %(header)b,
    %(object_name)s, %(prefix_length)s, %(dataset_length)s, %(digest)b, %(source)s, %(action)s,
    %(outcome)s, %(actor)s, %(address)s, %(protocol)s, %(study_uids)s, %(detail)s
)
"""

_PATIENT = """
INSERT INTO patients (
    patient_key, patient_id, issuer, name, name_sounds, birth_date, sex, attributes
)
SELECT %(patient_key)s, %(patient_id)s, %(issuer)s, %(name)s, %(name_sounds)s::text[], %(birth_date)s,
       %(sex)s, %(attributes)s::jsonb
WHERE NOT EXISTS (SELECT FROM studies WHERE study_uid = %(study_uid)s)
ON CONFLICT (patient_key) DO NOTHING RETURNING patient_pk
"""

_STUDY = """
INSERT INTO studies (
    study_uid, patient_pk, study_date, study_time, accession_number, study_id, description,
    referring_physician, attributes
)
SELECT %(study_uid)s, patient_pk, %(study_date)s, %(study_time)s, %(accession_number)s, %(study_id)s,
       %(description)s, %(referring_physician)s, %(attributes)s::jsonb
FROM patients WHERE patient_key = %(patient_key)s
ON CONFLICT (study_uid) DO NOTHING
"""

_SERIES = """
INSERT INTO series (series_uid, study_pk, modality, series_number, attributes)
SELECT %(series_uid)s, study_pk, %(modality)s, %(series_number)s::bigint, %(attributes)s::jsonb
FROM studies WHERE study_uid = %(study_uid)s
ON CONFLICT (series_uid) DO NOTHING
"""

_ELSEWHERE = """
SELECT FROM series JOIN studies USING (study_pk)
WHERE series_uid = %(series_uid)s AND study_uid <> %(study_uid)s
"""

_IN_FORCE = f"SELECT {INSTANCE_COLUMNS} FROM {JOINED} WHERE sop_instance_uid = %s"  # noqa: S608

Row = tuple[Any, ...]


def admit(pool: Pool, record: InstanceRecord, event: AuditEvent) -> tuple[Admission, StoredInstance]:
    """See `node.ports.Instances.admit`."""
    parameters = {
        **instance_columns(record),
        **event_parameters(event),
        "lock": lock_key("study", record.study_uid),
    }
    for attempt in range(ATTEMPTS):
        row = _usual(pool, parameters)
        if row is None:
            row = _long(pool, record, event, parameters)
        admitted = row and _outcome(pool, record, row)
        if admitted:
            return admitted
        if attempt + 1 == ATTEMPTS:
            break
    raise Refusal(Reason.UNAVAILABLE, "the study changed too often meanwhile")


def find(pool: Pool, sop_instance_uid: str) -> StoredInstance | None:
    """See `node.ports.Instances.find`."""
    with pool.connection() as connection:
        row = connection.execute(_IN_FORCE, (sop_instance_uid,)).fetchone()
    return stored_instance(row) if row else None


def _usual(pool: Pool, parameters: dict[str, Any]) -> Row | None:
    """One round trip. None if there is no such series (and nothing was done)."""
    with pool.connection() as connection:
        with hang_up_after(connection, COMMIT_SECONDS):
            cursor = connection.execute(_ADMIT, parameters, prepare=True)
        connection.confirm()
        row: Row | None = cursor.fetchone()
    return row


def _long(pool: Pool, record: InstanceRecord, event: AuditEvent, parameters: dict[str, Any]) -> Row | None:
    """With the rows above. None if it has to be tried again. Refusal(MISMATCH)."""
    uids = {"study_uid": record.study_uid, "series_uid": record.series_uid}
    patient = {**patient_columns(record), **uids, "attributes": json_text(record.patient)}
    study = {**study_columns(record), **uids, "attributes": json_text(record.study)}
    study["patient_key"] = patient["patient_key"]
    series = {**series_columns(record), **uids, "attributes": json_text(record.series)}
    with pool.transaction() as connection:
        with connection.pipeline():
            connection.execute(_SHARED_LOCK, (lock_key("study", record.study_uid),))
            connection.execute(_SHARED_LOCK, (lock_key("patient", patient["patient_key"]),))
            connection.execute("SAVEPOINT above")
            created = connection.execute(_PATIENT, patient)
            connection.execute(_STUDY, study)
            connection.execute(_SERIES, series)
            admitted = connection.execute(_ADMIT, parameters)
            elsewhere = connection.execute(_ELSEWHERE, uids)
        row: Row | None = admitted.fetchone()
        if row is None and elsewhere.fetchone() is not None:
            raise Refusal(Reason.MISMATCH, "the series exists in another study")
        if row is None or (row[1] and created.fetchone() is not None):
            # Somebody else made the study just now, for another patient: ours would have no study.
            connection.execute("ROLLBACK TO SAVEPOINT above")
            return None
        if not row[0]:
            connection.execute("ROLLBACK TO SAVEPOINT above")
            write_event(connection, replace(event, outcome=Reason.CONFLICT.value))
    return row


def _outcome(pool: Pool, record: InstanceRecord, row: Row) -> tuple[Admission, StoredInstance] | None:
    """What the row of `_ADMIT` means. None if the row in force was removed meanwhile."""
    same, _, name, prefix_length, dataset_length, received_at, frames = row
    if not same:
        in_force = find(pool, record.sop_instance_uid)
        return None if in_force is None else (Admission.CONFLICT, in_force)
    # Object names are unique per attempt: the row that names ours is ours.
    admission = Admission.STORED if name == record.stored.name else Admission.DUPLICATE
    stored = replace(record.stored, name=name, prefix_length=prefix_length, dataset_length=dataset_length)
    return admission, StoredInstance(
        sop_class_uid=record.sop_class_uid,
        sop_instance_uid=record.sop_instance_uid,
        transfer_syntax_uid=record.transfer_syntax_uid,
        study_uid=record.study_uid,
        series_uid=record.series_uid,
        stored=stored,
        received_at=received_at,
        number_of_frames=frames,
    )
