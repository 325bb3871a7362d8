"""Attributes that are counted or collected when they are asked for (PS3.4 section C.3.4).

Counted for the distinct patients, studies and series of a page, one statement for each kind of them.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from node.adapters.catalog_postgres.searches_asking import KEYS, Asking
from node.domain import query
from node.domain.dictionary import vr_of

# Tag: the key to count by, and what is counted for the key `k.pk`. Always by index, key by key: counted
# in one go for all keys, a large catalog can tempt the planner to read whole tables.
_COUNT = "(SELECT count(*) FROM {rows} WHERE {table}.{key} = k.pk)"
_LIST = "ARRAY(SELECT DISTINCT {column} FROM {table} WHERE {key} = k.pk AND {column} <> '')"
_EXPRESSIONS = {
    query.NUMBER_OF_PATIENT_RELATED_STUDIES: (
        "patient_pk",
        _COUNT.format(rows="studies", table="studies", key="patient_pk"),
    ),
    query.NUMBER_OF_PATIENT_RELATED_SERIES: (
        "patient_pk",
        _COUNT.format(rows="studies JOIN series USING (study_pk)", table="studies", key="patient_pk"),
    ),
    query.NUMBER_OF_PATIENT_RELATED_INSTANCES: (
        "patient_pk",
        _COUNT.format(rows="studies JOIN instances USING (study_pk)", table="studies", key="patient_pk"),
    ),
    query.NUMBER_OF_STUDY_RELATED_SERIES: (
        "study_pk",
        _COUNT.format(rows="series", table="series", key="study_pk"),
    ),
    query.NUMBER_OF_STUDY_RELATED_INSTANCES: (
        "study_pk",
        _COUNT.format(rows="instances", table="instances", key="study_pk"),
    ),
    query.NUMBER_OF_SERIES_RELATED_INSTANCES: (
        "series_pk",
        _COUNT.format(rows="instances", table="instances", key="series_pk"),
    ),
    query.MODALITIES_IN_STUDY: (
        "study_pk",
        _LIST.format(column="modality", table="series", key="study_pk"),
    ),
    query.SOP_CLASSES_IN_STUDY: (
        "study_pk",
        _LIST.format(column="sop_class_uid", table="instances", key="study_pk"),
    ),
}
_STATEMENT = "SELECT k.pk, {expressions} FROM {keys} AS k (pk)"
_ONLINE = {"vr": "CS", "Value": ["ONLINE"]}

Keys = dict[str, int]  # "patient_pk", "study_pk", "series_pk" of a row, those that it has


def computed(asking: Asking, tags: Iterable[str], rows: Sequence[Keys]) -> list[dict[str, dict[str, Any]]]:
    """The computed attributes of each row, in DICOM JSON; a count of nothing is 0."""
    wanted: dict[str, list[str]] = {}
    for tag in sorted(tags):
        key, _ = _EXPRESSIONS.get(tag, ("", ""))
        if rows and key in rows[0]:
            wanted.setdefault(key, []).append(tag)
    results: list[dict[str, dict[str, Any]]] = [{query.INSTANCE_AVAILABILITY: _ONLINE} for _ in rows]
    for key, its_tags in wanted.items():
        expressions = ", ".join(_EXPRESSIONS[tag][1] for tag in its_tags)
        pks = {row[key] for row in rows}
        found = {
            row[0]: row[1:]
            for row in asking.by_keys(_STATEMENT.format(expressions=expressions, keys=KEYS), pks)
        }
        elements = {
            pk: {tag: _element(tag, value) for tag, value in zip(its_tags, values, strict=True)}
            for pk, values in found.items()
        }
        for row, result in zip(rows, results, strict=True):
            result.update(elements[row[key]])
    return results


def _element(tag: str, value: int | list[str]) -> dict[str, Any]:
    vr = vr_of(int(tag, 16))
    values = value if isinstance(value, list) else [value]
    return {"vr": vr, "Value": values} if values else {"vr": vr}
