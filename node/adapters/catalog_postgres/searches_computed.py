"""Attributes that are counted or collected when they are asked for (PS3.4 section C.3.4).

Counted per page, for the distinct patients, studies and series on it, in one statement.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from node.adapters.catalog_postgres.pool import CatalogConnection
from node.domain import query
from node.domain.dictionary import vr_of

# Tag: which key the rows are counted by (its place in a page's row), and how
_COUNTS: dict[str, tuple[str, str]] = {
    query.NUMBER_OF_PATIENT_RELATED_STUDIES: (
        "patient",
        "SELECT patient_pk, to_jsonb(count(*)) FROM studies WHERE patient_pk = ANY(%s) GROUP BY patient_pk",
    ),
    query.NUMBER_OF_PATIENT_RELATED_SERIES: (
        "patient",
        "SELECT patient_pk, to_jsonb(count(*)) FROM studies JOIN series USING (study_pk)"
        " WHERE patient_pk = ANY(%s) GROUP BY patient_pk",
    ),
    query.NUMBER_OF_PATIENT_RELATED_INSTANCES: (
        "patient",
        "SELECT patient_pk, to_jsonb(count(*)) FROM studies JOIN instances USING (study_pk)"
        " WHERE patient_pk = ANY(%s) GROUP BY patient_pk",
    ),
    query.NUMBER_OF_STUDY_RELATED_SERIES: (
        "study",
        "SELECT study_pk, to_jsonb(count(*)) FROM series WHERE study_pk = ANY(%s) GROUP BY study_pk",
    ),
    query.NUMBER_OF_STUDY_RELATED_INSTANCES: (
        "study",
        "SELECT study_pk, to_jsonb(count(*)) FROM instances WHERE study_pk = ANY(%s) GROUP BY study_pk",
    ),
    query.MODALITIES_IN_STUDY: (
        "study",
        "SELECT study_pk, to_jsonb(array_agg(DISTINCT modality)) FROM series"
        " WHERE study_pk = ANY(%s) AND modality <> '' GROUP BY study_pk",
    ),
    query.SOP_CLASSES_IN_STUDY: (
        "study",
        "SELECT study_pk, to_jsonb(array_agg(DISTINCT sop_class_uid)) FROM instances"
        " WHERE study_pk = ANY(%s) GROUP BY study_pk",
    ),
    query.NUMBER_OF_SERIES_RELATED_INSTANCES: (
        "series",
        "SELECT series_pk, to_jsonb(count(*)) FROM instances WHERE series_pk = ANY(%s) GROUP BY series_pk",
    ),
}

Keys = dict[str, int]  # "patient", "study", "series": the row's primary keys
_AVAILABLE = {"vr": "CS", "Value": ["ONLINE"]}


def computed(
    connection: CatalogConnection, tags: Iterable[str], rows: Sequence[Keys]
) -> list[dict[str, dict[str, Any]]]:
    """The computed attributes of each row, in DICOM JSON; a count of nothing is 0."""
    wanted = [(tag, *_COUNTS[tag]) for tag in sorted(tags) if tag in _COUNTS]
    wanted = [(tag, key, text) for tag, key, text in wanted if rows and key in rows[0]]
    values: dict[tuple[str, int], Any] = {}
    if wanted:
        parts = [
            sql.SQL("SELECT {}, * FROM ({}) counted").format(sql.Literal(tag), sql.SQL(text))
            for tag, _, text in wanted
        ]
        parameters = [list({row[key] for row in rows}) for _, key, _ in wanted]
        found = connection.execute(sql.SQL(" UNION ALL ").join(parts), parameters, prepare=False)
        values = {(tag, pk): value for tag, pk, value in found}
    results = []
    for row in rows:
        attributes = {tag: _element(tag, values.get((tag, row[key]))) for tag, key, _ in wanted}
        attributes[query.INSTANCE_AVAILABILITY] = dict(_AVAILABLE)
        results.append(attributes)
    return results


def _element(tag: str, value: Any) -> dict[str, Any]:
    vr = vr_of(int(tag, 16))
    if isinstance(value, list):
        return {"vr": vr, "Value": value}
    if vr == "IS":
        return {"vr": vr, "Value": [value or 0]}
    return {"vr": vr}
