"""Searching the catalog: SQL from queries.

How a search stays fast however large the catalog is:

* Results come in an order that an index has (`studies_newest`), a page at a time by keyset: the next
  page begins behind the last row's (study date, keys), so that no page is dearer than another, nothing
  is held between two pages, and pages neither repeat nor skip rows.
* Conditions on the patient are looked into first (`searches_patients`), so that neither a rare nor a
  frequent name leads the planner astray.
* What is looked for is keys; only the page's own rows are then read and completed (`searches_asking`).
  Keys beyond the page tell how many results follow.
"""

import json
from collections.abc import Generator, Mapping, Sequence

from psycopg import sql

from node.adapters.catalog_postgres.pool import Pool
from node.adapters.catalog_postgres.searches_asking import Asking, Row
from node.adapters.catalog_postgres.searches_computed import Keys, computed
from node.adapters.catalog_postgres.searches_patients import narrowed
from node.adapters.catalog_postgres.searches_select import ROWS, After, Select, parse_cursor
from node.adapters.catalog_postgres.searches_where import (
    PATIENT_NAME,
    any_of,
    condition,
    conditions,
    name_conditions,
)
from node.domain.keys import UNIQUE, owners
from node.domain.model import Attributes, AuditEvent, Level
from node.domain.query import Hit, Kind, Page, Query

FIRST_BATCH = 100  # then twice as many each time: who has seen enough says so after the first few
BATCH = 1000


class PostgresSearches:
    """`node.ports.Searches`. `max_results` caps every query's limit."""

    def __init__(self, pool: Pool, *, extra_tags: Mapping[Level, Sequence[str]], max_results: int) -> None:
        self._pool = pool
        self._max_results = max_results
        self._level_of = owners(extra_tags)
        self._indexed = frozenset(tag for tags in extra_tags.values() for tag in tags)

    def search(self, query: Query, event: AuditEvent) -> Generator[Hit, None, None]:
        """See `node.ports.Searches`. Nothing is read before the first result is asked for."""
        left = min(query.limit, self._max_results)
        after, offset, batch = parse_cursor(query), query.offset, FIRST_BATCH
        told: AuditEvent | None = event
        while left > 0 or told:
            wanted = min(batch, left)
            with self._pool.connection() as connection:
                asking, told = Asking(connection, told), None
                places = self._places(asking, query, after, wanted, offset)
                hits = _hits(asking, query, places)
                asking.finish()
            yield from hits
            if len(places) < wanted or not places:
                return
            after, offset, batch = places[-1], 0, min(2 * batch, BATCH)
            left -= len(places)

    def page(self, query: Query, event: AuditEvent, count_at_most: int) -> Page:
        """See `node.ports.Searches`."""
        wanted = min(query.limit, self._max_results)
        with self._pool.connection() as connection:
            asking = Asking(connection, event)
            after, offset = parse_cursor(query), query.offset
            places: list[After] = []
            hits: list[Hit] = []
            beyond = 0  # how many are counted beyond the page: where rows are walked, only whether there are
            while wanted and not hits:
                select = self._select(asking, query, after)
                if select is None:
                    break
                beyond = 1 if select.walks else count_at_most
                places = _read(asking, select, wanted + beyond, offset)
                if not places:
                    break
                hits = _hits(asking, query, places[:wanted])
                after, offset = places[:wanted][-1], 0  # for when all of the page was removed just now
            asking.finish()
        remaining = max(0, len(places) - wanted)
        return Page(hits, remaining, exact=remaining < beyond or not remaining)

    def _places(
        self, asking: Asking, query: Query, after: After | None, limit: int, offset: int
    ) -> list[After]:
        """Where a page's rows stand."""
        select = self._select(asking, query, after) if limit else None
        return _read(asking, select, limit, offset) if select else []

    def _select(self, asking: Asking, query: Query, after: After | None) -> Select | None:
        """The SELECT of a query, None if no patient matches."""
        scope = query.scope
        named = [match for match in query.matches if match.path == (PATIENT_NAME,)]
        rest = [match for match in query.matches if match.path != (PATIENT_NAME,)]
        found = conditions(rest, self._level_of, self._indexed)
        for table, column, value in (
            ("p", "patient_id", scope.patient_id),
            ("p", "issuer", scope.issuer),
            ("s", "study_uid", scope.study_uid),
            ("e", "series_uid", scope.series_uid),
            ("i", "sop_instance_uid", scope.instance_uid),
        ):
            if value is not None:
                name = sql.Identifier(table, column)
                found.append(condition("{name} = %s", value, tables=table, name=name))
        if _fixes_study(query):  # everything else is then a filter on few rows
            found += [any_of(name_conditions(match, fuzzy=query.fuzzy)) for match in named]
            return Select(query.level, found, after, fixed_study=True, walks=False)
        of_patient = [one for one in found if one.tables == {"p"}]
        others = [one for one in found if one.tables != {"p"}]
        patients = narrowed(asking, query, named, of_patient)
        if patients is None:
            return None
        return Select(
            query.level, [*others, *patients.conditions], after, fixed_study=False, walks=patients.frequent
        )


def _fixes_study(query: Query) -> bool:
    """Whether one study at most is asked for."""
    single = (match for match in query.matches if match.kind is Kind.SINGLE)
    return query.scope.study_uid is not None or any(match.path == (UNIQUE[Level.STUDY],) for match in single)


def _read(asking: Asking, select: Select, limit: int, offset: int) -> list[After]:
    return [After(*row) for row in asking.keys(*select.keys(limit, offset), by_unique=select.fixed_study)]


def _hits(asking: Asking, query: Query, places: Sequence[After]) -> list[Hit]:
    """The results at these places, but for what was removed just now."""
    if not places:
        return []
    cursors = {place.pk: place.cursor() for place in places}
    rows = asking.by_keys(ROWS[query.level], cursors)
    extras = computed(asking, query.computed, [_keys(row) for row in rows])
    # All in one go: a call of the parser for each costs more than what it parses.
    kept = json.loads("[" + ",".join(text or "{}" for row in rows for text in row[4:8]) + "]")
    return [
        Hit(_attributes(row, kept[4 * at : 4 * at + 4], extra), cursors[row[0]])
        for at, (row, extra) in enumerate(zip(rows, extras, strict=True))
    ]


def _keys(row: Row) -> Keys:
    """What computed attributes are counted by."""
    keys = zip(("patient_pk", "study_pk", "series_pk"), row[1:4], strict=True)
    return {name: key for name, key in keys if key is not None}


def _attributes(row: Row, kept: Sequence[Attributes], extra: Attributes) -> Attributes:
    """All attributes of a row's levels; what two levels keep is the upper one's."""
    uids = zip(("0020000D", "0020000E", "00080018", "00080016"), row[8:12], strict=True)
    known: Attributes = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids if uid is not None}
    patient, study, series, instance = kept
    return {**instance, **series, **study, **patient, **known, **extra}
