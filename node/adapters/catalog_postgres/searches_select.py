"""The SELECT of a search: which tables, in which order, from which place on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from node.adapters.catalog_postgres.searches_asking import KEYS
from node.adapters.catalog_postgres.searches_where import Condition, all_of, condition
from node.domain.errors import Reason, Refusal
from node.domain.model import Level
from node.domain.query import Query

Row = tuple[Any, ...]
Statement = tuple[sql.Composed, list[Any]]

_NEWEST_FIRST = 's.study_date COLLATE "C" DESC, s.study_pk DESC'
# By level: the table of the level itself, what can be joined to it, and the order within a study
_BASE = {Level.PATIENT: "p", Level.STUDY: "s", Level.SERIES: "e", Level.IMAGE: "i"}
_FROM = {
    Level.PATIENT: ("patients p", {}),
    Level.STUDY: ("studies s", {"p": "JOIN patients p ON p.patient_pk = s.patient_pk"}),
    Level.SERIES: (
        "series e",
        {
            "s": "JOIN studies s ON s.study_pk = e.study_pk",
            "p": "JOIN patients p ON p.patient_pk = s.patient_pk",
        },
    ),
    Level.IMAGE: (
        "instances i",
        {
            "e": "JOIN series e ON e.series_pk = i.series_pk",
            "s": "JOIN studies s ON s.study_pk = i.study_pk",
            "p": "JOIN patients p ON p.patient_pk = s.patient_pk",
        },
    ),
}
_OWN_ORDER = {
    Level.PATIENT: "p.patient_pk",
    Level.STUDY: "",
    Level.SERIES: "e.series_pk",
    Level.IMAGE: "i.instance_pk",
}
_KEY = {
    Level.PATIENT: "p.patient_pk",
    Level.STUDY: "s.study_pk",
    Level.SERIES: "e.series_pk",
    Level.IMAGE: "i.instance_pk",
}
# The page's rows, completed: the same columns whatever the level
_COLUMNS = {
    Level.PATIENT: "p.patient_pk, NULL, NULL, p.attributes::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
    Level.STUDY: "s.patient_pk, s.study_pk, NULL, p.attributes::text, s.attributes::text, NULL, NULL,"
    " s.study_uid, NULL, NULL, NULL",
    Level.SERIES: "s.patient_pk, s.study_pk, e.series_pk, p.attributes::text, s.attributes::text,"
    " e.attributes::text, NULL, s.study_uid, e.series_uid, NULL, NULL",
    Level.IMAGE: "s.patient_pk, s.study_pk, i.series_pk, p.attributes::text,"
    " s.attributes::text, e.attributes::text, i.attributes::text, s.study_uid, e.series_uid,"
    " i.sop_instance_uid, i.sop_class_uid",
}


def _rows(level: Level) -> str:
    """The statement that completes rows by their keys, in the keys' order."""
    base, joins = _FROM[level]
    return (
        f"SELECT page.pk, {_COLUMNS[level]} FROM {KEYS} WITH ORDINALITY AS page (pk, place)"  # noqa: S608
        f" JOIN {base} ON {_KEY[level]} = page.pk {' '.join(joins.values())} ORDER BY page.place"
    )


# Columns: key, keys of patient, study and series, attributes of patient to instance (JSON text),
# UIDs of study to instance, SOP class UID
ROWS = {level: _rows(level) for level in _FROM}


@dataclass(frozen=True, slots=True)
class After:
    """The place of a row in the order: its study's date and key, and its own key. Where a single study (or
    none) is searched, the own key says it all."""

    study_date: str
    study_pk: int
    pk: int

    def cursor(self) -> str:
        """The place as text for `Query.after`."""
        return f"{self.study_pk}.{self.pk}.{self.study_date}"


def parse_cursor(query: Query) -> After | None:
    """The place that `query.after` names; Refusal(INVALID_QUERY) if it is none."""
    if query.after is None:
        return None
    study_pk, _, rest = query.after.partition(".")
    pk, dot, study_date = rest.partition(".")
    keys = [key for key in (study_pk, pk) if key.isascii() and key.isdecimal() and len(key) <= 18]
    if len(keys) != 2 or not dot or "\0" in study_date:
        raise Refusal(Reason.INVALID_QUERY, "after: not a place in the results")
    return After(study_date, int(study_pk), int(pk))


class Select:
    """Rows at a level under conditions, in order, behind a place.

    `fixed_study`: the conditions leave one study at most, so that its own order is enough. `walks`: many
    rows are looked at for each one found, so that counting costs more than reading a page.
    """

    def __init__(
        self,
        level: Level,
        conditions: Sequence[Condition],
        after: After | None,
        *,
        fixed_study: bool,
        walks: bool,
    ) -> None:
        self.walks = walks
        self.fixed_study = fixed_study
        self._level = level
        self._by_study = level is not Level.PATIENT and not (fixed_study and level is not Level.STUDY)
        self._where = all_of([*conditions, *self._behind(after)])

    def keys(self, limit: int, offset: int) -> Statement:
        """The places of a page's rows, in order, as the columns of `After`."""
        key = _KEY[self._level]
        place = f"s.study_date, s.study_pk, {key}" if self._by_study else f"'', 0, {key}"
        text = sql.SQL("SELECT {place} {source} WHERE {where} ORDER BY {order} LIMIT %s OFFSET %s").format(
            place=sql.SQL(place),
            source=self._source(self._where.tables | ({"s"} if self._by_study else frozenset())),
            where=self._where.text,
            order=sql.SQL(self._order()),
        )
        return text, [*self._where.parameters, limit, offset]

    def _order(self) -> str:
        own = _OWN_ORDER[self._level]
        return ", ".join(part for part in (_NEWEST_FIRST if self._by_study else "", own) if part)

    def _source(self, tables: frozenset[str]) -> sql.Composed:
        base, joins = _FROM[self._level]
        wanted = set(tables) | ({"s"} if "p" in tables and "s" in joins else set())
        parts = [f"FROM {base}", *(text for table, text in joins.items() if table in wanted)]
        return sql.SQL(" ").join(sql.SQL(part) for part in parts)

    def _behind(self, after: After | None) -> list[Condition]:
        if after is None:
            return []
        own = _OWN_ORDER[self._level]
        if not self._by_study:
            return [condition("{own} > %s", after.pk, tables=_BASE[self._level], own=sql.SQL(own))]
        place = [after.study_date, after.study_pk]
        study = '(s.study_date COLLATE "C", s.study_pk) {than} (%s::text, %s)'
        if not own:
            return [condition(study, *place, tables="s", than=sql.SQL("<"))]
        later = condition(
            "(s.study_pk <> %s OR {own} > %s)",
            after.study_pk,
            after.pk,
            tables="s" + _BASE[self._level],
            own=sql.SQL(own),
        )
        return [condition(study, *place, tables="s", than=sql.SQL("<=")), later]
