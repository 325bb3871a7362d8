"""Synthetic instances for the catalog's contract suite."""

import hashlib
import uuid
from typing import Any

import psycopg

from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.domain.model import Actor, Attributes, AuditEvent, InstanceRecord, StoredObject

MODALITY = Actor("MODALITY", "192.0.2.7", "dimse")
STORE = AuditEvent("store", MODALITY)
DELETE = AuditEvent("delete", Actor("admin", "192.0.2.8", "http"))
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def open_catalog(dsn: str, *, size: int = 12, statement_seconds: float = 30) -> PostgresCatalog:
    """A catalog on the database."""
    return PostgresCatalog(
        dsn,
        pool_size=size,
        connect_seconds=5,
        statement_seconds=statement_seconds,
        extra_tags={},
        max_results=1000,
    )


def record(
    instance: int = 1,
    *,
    study: str = "2.25.1",
    series: str = "",
    patient_id: str = "P1",
    dataset: bytes = b"dataset",
    uid: str = "",
    syntax: str = EXPLICIT_LITTLE,
    header: bytes = b"header",
    patient: Attributes | None = None,
) -> InstanceRecord:
    """An instance; same arguments mean the same bytes under another object name."""
    series_uid = series or f"{study}.1"
    identity: Attributes = {"00100020": {"vr": "LO", "Value": [patient_id]}} if patient_id else {}
    name: Attributes = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Test^Anna"}]}}
    return InstanceRecord(
        sop_class_uid=CT,
        sop_instance_uid=uid or f"{series_uid}.{instance}",
        transfer_syntax_uid=syntax,
        study_uid=study,
        series_uid=series_uid,
        patient={**identity, **name, **(patient or {})},
        study={"00080020": {"vr": "DA", "Value": ["20260102"]}},
        series={"00080060": {"vr": "CS", "Value": ["CT"]}, "00200011": {"vr": "IS", "Value": [3]}},
        instance={"00200013": {"vr": "IS", "Value": [instance]}},
        header=header,
        stored=StoredObject(uuid.uuid4().hex, 344, len(dataset), hashlib.sha256(dataset).digest()),
        source=MODALITY,
    )


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    """What a query finds, beside the catalog's own connections."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def counts(dsn: str) -> tuple[int, int, int]:
    """How many patients, studies and series there are."""
    ((patients, studies, series),) = rows(
        dsn,
        "SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM studies),"
        " (SELECT count(*) FROM series)",
    )
    return patients, studies, series


def one(dsn: str, query: str) -> Any:
    """The single value that a query finds."""
    ((value,),) = rows(dsn, query)
    return value


def whole(dsn: str) -> None:
    """Fail if a row is without what belongs above or below it."""
    for above, below, key in (
        ("patients", "studies", "patient_pk"),
        ("studies", "series", "study_pk"),
        ("series", "instances", "series_pk"),
    ):
        query = f"SELECT count(*) FROM {above} FULL JOIN {below} USING ({key})"  # noqa: S608
        empty = f"{query} WHERE {below}.{below_key(below)} IS NULL OR {above}.{key} IS NULL"
        assert one(dsn, empty) == 0, f"{above} and {below} do not fit together"


def below_key(table: str) -> str:
    """The primary key of a table."""
    return {"studies": "study_pk", "series": "series_pk", "instances": "instance_pk"}[table]
