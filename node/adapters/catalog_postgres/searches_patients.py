"""Conditions on the patient, made fit for a search of studies, series or instances.

The trap of ORDER BY with LIMIT is to walk the order's index while filtering by something rare; the
opposite one is to collect and sort everything that something frequent matches. Which one it is, is found
out by looking:

1. The patients are looked up, each alternative by its own index, up to SOME. Few keys take the place of
   the conditions. (Not for a name that begins with a wildcard: its index finds all or nothing.)
2. The names are tried on the newest SAMPLE studies. If COMMON of them match, a walk of `studies_newest`,
   which has all it needs, soon has a page full.
3. Otherwise the patients are looked up again, up to MANY. If there are more, the conditions stay.

So neither kind of name costs more than a few thousand look-ups or some ten thousand index entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from node.adapters.catalog_postgres.searches_asking import Asking
from node.adapters.catalog_postgres.searches_where import (
    PATIENT_ID,
    Condition,
    all_of,
    any_of,
    condition,
    name_conditions,
)
from node.domain.model import Level
from node.domain.query import Kind, Match, Query

SOME = 1500
MANY = 10_000
SAMPLE = 4000
COMMON = 5

_NOBODY = "{}"

_SAMPLE = """
SELECT count(*) FROM (
    SELECT patient_name FROM studies ORDER BY study_date COLLATE "C" DESC, study_pk DESC LIMIT {sample}
) s WHERE {where}
"""
_KEYS = "SELECT count(*), coalesce(array_agg(patient_pk), '{{}}')::text FROM ({found}) found"
_PATIENTS = "(SELECT p.patient_pk FROM patients p WHERE {where} LIMIT {limit})"


@dataclass(frozen=True, slots=True)
class Patients:
    """Conditions in place of those on the patient; `frequent` if they are left to a walk."""

    conditions: list[Condition]
    frequent: bool


def narrowed(
    asking: Asking, query: Query, named: Sequence[Match], others: Sequence[Condition]
) -> Patients | None:
    """What to search for in place of the names and the other conditions; None if nobody matches."""
    if not named and not others:
        return Patients([], frequent=False)
    in_studies = query.level is not Level.PATIENT and not query.fuzzy
    alternatives = [name_conditions(match, fuzzy=query.fuzzy) for match in named] or [[condition("TRUE")]]
    rest = [*others, *(any_of(one) for one in alternatives[1:])]
    patients: str | None = None
    if not any(_is_infix(match) for match in named):
        patients = _few(asking, alternatives[0], rest, SOME, by_unique=_is_id(query, named, others))
    if patients is None and not (in_studies and named and _is_common(asking, named)):
        patients = _few(asking, alternatives[0], rest, MANY)
    if patients is None:
        names = (name_conditions(match, fuzzy=query.fuzzy, in_studies=in_studies) for match in named)
        return Patients([*others, *(any_of(one) for one in names)], frequent=True)
    if patients == _NOBODY:
        return None
    table = "p" if query.level is Level.PATIENT else "s"
    key = sql.Identifier(table, "patient_pk")
    return Patients([condition("{key} = ANY(%s::bigint[])", patients, tables=table, key=key)], frequent=False)


def _is_id(query: Query, named: Sequence[Match], others: Sequence[Condition]) -> bool:
    """Whether all that is asked of the patient is one ID."""
    ids = [match for match in query.matches if match.path == (PATIENT_ID,) and match.kind is Kind.SINGLE]
    return not named and len(ids) == len(others) == 1


def _is_infix(match: Match) -> bool:
    return match.kind is Kind.WILDCARD and match.values[0].startswith(("*", "?"))


def _is_common(asking: Asking, named: Sequence[Match]) -> bool:
    """Whether the names match often among the newest studies."""
    where = all_of([any_of(name_conditions(match, in_studies=True)) for match in named])
    text = sql.SQL(_SAMPLE).format(sample=sql.Literal(SAMPLE), where=where.text)
    return bool(asking.keys(text, where.parameters)[0][0] >= COMMON)


def _few(
    asking: Asking,
    alternatives: Sequence[Condition],
    others: Sequence[Condition],
    limit: int,
    *,
    by_unique: bool = False,
) -> str | None:
    """The keys of the patients under all `others` and one of the alternatives, as PostgreSQL writes an array
    (there can be thousands, and all we do is to hand them back); None if there are more than `limit`."""
    parts, parameters = [], []
    for alternative in alternatives:
        where = all_of([alternative, *others])
        parts.append(sql.SQL(_PATIENTS).format(where=where.text, limit=sql.Literal(limit + 1)))
        parameters += where.parameters
    text = sql.SQL(_KEYS).format(found=sql.SQL(" UNION ").join(parts))
    number, keys = asking.keys(text, parameters, by_unique=by_unique)[0]
    return str(keys) if number <= limit else None
