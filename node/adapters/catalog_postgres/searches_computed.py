"""Attributes that are counted or collected when they are asked for (PS3.4 section C.3.4).

Counted per page, for the distinct patients, studies and series on it, in one statement.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import sql

from node.adapters.catalog_postgres.pool import CatalogConnection
from node.domain import query
from node.domain.dictionary import vr_of

# Tag: the key to count by, the rows to count
_COUNTS = {
    query.NUMBER_OF_PATIENT_RELATED_STUDIES: ("patient_pk", "studies"),
    query.NUMBER_OF_PATIENT_RELATED_SERIES: ("patient_pk", "studies JOIN series USING (study_pk)"),
    query.NUMBER_OF_PATIENT_RELATED_INSTANCES: ("patient_pk", "studies JOIN instances USING (study_pk)"),
    query.NUMBER_OF_STUDY_RELATED_SERIES: ("study_pk", "series"),
    query.NUMBER_OF_STUDY_RELATED_INSTANCES: ("study_pk", "instances"),
    query.NUMBER_OF_SERIES_RELATED_INSTANCES: ("series_pk", "instances"),
}
# Tag: the key to collect by, the rows, the column whose distinct values are collected
_LISTS = {
    query.MODALITIES_IN_STUDY: ("study_pk", "series", "modality"),
    query.SOP_CLASSES_IN_STUDY: ("study_pk", "instances", "sop_class_uid"),
}
_COUNT = "SELECT {tag}, {key}, count(*), NULL::text[] FROM {rows} WHERE {key} = ANY(%s) GROUP BY {key}"
_LIST = (
    "SELECT {tag}, {key}, NULL::bigint, array_agg(DISTINCT {column}) FROM {rows}"
    " WHERE {key} = ANY(%s) AND {column} <> '' GROUP BY {key}"
)

Keys = dict[str, int]  # "patient_pk", "study_pk", "series_pk" of a row, those that it has


def computed(
    connection: CatalogConnection, tags: Iterable[str], rows: Sequence[Keys]
) -> list[dict[str, dict[str, Any]]]:
    """The computed attributes of each row, in DICOM JSON; a count of nothing is 0."""
    wanted = [(tag, *_statement(tag)) for tag in sorted(tags) if tag in _COUNTS or tag in _LISTS]
    wanted = [(tag, key, text) for tag, key, text in wanted if rows and key in rows[0]]
    values: dict[tuple[str, int], list[Any]] = {}
    if wanted:
        text = sql.SQL(" UNION ALL ").join(text for _, _, text in wanted)
        parameters = [list({row[key] for row in rows}) for _, key, _ in wanted]
        found = connection.execute(text, parameters, prepare=False)
        values = {(tag, pk): collected or [number] for tag, pk, number, collected in found}
    results = []
    for row in rows:
        attributes = {tag: _element(tag, values.get((tag, row[key]))) for tag, key, _ in wanted}
        attributes[query.INSTANCE_AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
        results.append(attributes)
    return results


def _statement(tag: str) -> tuple[str, sql.Composed]:
    """The key of a tag's rows, and the SELECT of (tag, key, number, values)."""
    if tag in _COUNTS:
        key, rows = _COUNTS[tag]
        text = sql.SQL(_COUNT).format(tag=sql.Literal(tag), key=sql.Identifier(key), rows=sql.SQL(rows))
        return key, text
    key, rows, column = _LISTS[tag]
    text = sql.SQL(_LIST).format(
        tag=sql.Literal(tag), key=sql.Identifier(key), rows=sql.SQL(rows), column=sql.Identifier(column)
    )
    return key, text


def _element(tag: str, values: list[Any] | None) -> dict[str, Any]:
    vr = vr_of(int(tag, 16))
    if values is None and vr == "IS":
        values = [0]
    return {"vr": vr, "Value": values} if values else {"vr": vr}
