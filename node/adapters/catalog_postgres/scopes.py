"""From scopes to SQL: which instances does a request address?"""

from collections.abc import Sequence
from typing import Any

from node.domain.model import Scope

# Instances with everything above them; `rows.INSTANCE_COLUMNS` fits it.
JOINED = """
    instances JOIN series USING (series_pk) JOIN studies ON studies.study_pk = instances.study_pk
    JOIN patients USING (patient_pk)
"""
ORDER = "instances.series_pk, instances.instance_number NULLS LAST, instances.sop_instance_uid"


def union(scopes: Sequence[Scope], columns: str) -> tuple[str, dict[str, Any]]:
    """A query for `columns` of the instances in any of the scopes; an instance may come twice.

    The scopes are passed as arrays, one row per scope, and each kind of scope (which UIDs it names) is
    a branch of its own that enters by its narrowest index.
    """
    kinds: dict[tuple[bool, ...], list[Scope]] = {}
    for scope in scopes:
        kinds.setdefault(tuple(value is not None for value in _values(scope)), []).append(scope)
    branches, parameters = [], {}
    for number, (kind, members) in enumerate(kinds.items()):
        if not any(kind[:4]):
            raise ValueError("a scope must name a patient, study, series or instance")
        conditions, arrays = [], []
        for position, named in enumerate(kind):
            if named:
                name = f"k{number}_{position}"
                arrays.append(f"%({name})s::text[]")
                parameters[name] = [str(_values(member)[position]).replace("\x00", "") for member in members]
                conditions.append((_COLUMNS[position], f"w{position}"))
        names = ", ".join(name for _, name in conditions)
        matches = " AND ".join(f'{column} = wanted.{name} COLLATE "C"' for column, name in conditions)
        branches.append(
            f"SELECT {columns} FROM unnest({', '.join(arrays)}) AS wanted ({names})"  # noqa: S608
            f" JOIN ({JOINED}) ON {matches}"
        )
    return " UNION ALL ".join(branches), parameters


_COLUMNS = (
    "instances.sop_instance_uid",
    "series.series_uid",
    "studies.study_uid",
    "patients.patient_id",
    "patients.issuer",
)


def _values(scope: Scope) -> tuple[str | None, ...]:
    return (scope.instance_uid, scope.series_uid, scope.study_uid, scope.patient_id, scope.issuer)
