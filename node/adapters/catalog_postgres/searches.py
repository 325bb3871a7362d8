"""Searching the catalog: SQL from queries.

How a search stays fast however large the catalog is:

* Results come in an order that an index has (`studies_newest`), a page at a time by keyset: the next
  page begins behind the last row's (study date, keys), so that no page is dearer than another, nothing
  is held between two pages, and pages neither repeat nor skip rows.
* Conditions on the patient are looked into first (`searches_patients`), so that neither a rare nor a
  frequent name leads the planner astray.
* A plan made for any value is a bad plan for most. Every statement is planned for its own values
  (`prepare=False`), and the just-in-time compiler, which costs more than these queries, is off.
"""

from collections.abc import Generator, Mapping, Sequence

from psycopg import sql

from node.adapters.catalog_postgres.audits import write_event
from node.adapters.catalog_postgres.pool import CatalogConnection, Pool
from node.adapters.catalog_postgres.searches_computed import Keys, computed
from node.adapters.catalog_postgres.searches_patients import narrowed
from node.adapters.catalog_postgres.searches_select import After, Row, Select, parse_cursor
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

FIRST_BATCH = 100
BATCH = 1000
# Set for the transaction only: the plans must not depend on how the server happens to be configured.
_SETTINGS = "SET LOCAL jit = off; SET LOCAL random_page_cost = 1.1"


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
        first = True
        while left > 0 or first:
            wanted = min(batch, left)
            with self._pool.transaction() as connection:
                if first:
                    write_event(connection, event)
                select = self._select(connection, query, after)
                hits, last = self._read(connection, query, select, offset, wanted)
            yield from hits
            if len(hits) < wanted or last is None:
                return
            after, offset, batch, first = last, 0, BATCH, False
            left -= len(hits)

    def page(self, query: Query, event: AuditEvent, count_at_most: int) -> Page:
        """See `node.ports.Searches`."""
        wanted = min(query.limit, self._max_results)
        with self._pool.transaction() as connection:
            write_event(connection, event)
            select = self._select(connection, query, parse_cursor(query))
            # One more tells whether there is anything to count.
            hits, _ = self._read(connection, query, select, query.offset, wanted + 1 if wanted else 0)
            if select is None or len(hits) <= wanted:
                return Page(hits, 0, exact=True)
            if select.walks:
                return Page(hits[:wanted], 1, exact=False)
            passed = query.offset + wanted
            text, parameters = select.count(passed + count_at_most)
            row = connection.execute(text, parameters, prepare=False).fetchone()
            remaining = int(row[0]) - passed if row else 0
        return Page(hits[:wanted], remaining, exact=remaining < count_at_most)

    def _read(
        self, connection: CatalogConnection, query: Query, select: Select | None, offset: int, limit: int
    ) -> tuple[list[Hit], After | None]:
        """A page's results and the place of the last one."""
        if select is None or not limit:
            return [], None
        rows = connection.execute(*select.page(limit, offset), prepare=False).fetchall()
        extras = computed(connection, query.computed, [_keys(row) for row in rows])
        places = [After.of(query.level, row) for row in rows]
        hits = [
            Hit(_attributes(row, extra), place.cursor())
            for row, extra, place in zip(rows, extras, places, strict=True)
        ]
        return hits, places[-1] if places else None

    def _select(self, connection: CatalogConnection, query: Query, after: After | None) -> Select | None:
        """The SELECT of a query, None if no patient matches."""
        connection.execute(_SETTINGS)
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
        patients = narrowed(connection, query, named, of_patient)
        if patients is None:
            return None
        return Select(
            query.level, [*others, *patients.conditions], after, fixed_study=False, walks=patients.frequent
        )


def _fixes_study(query: Query) -> bool:
    """Whether one study at most is asked for."""
    single = (match for match in query.matches if match.kind is Kind.SINGLE)
    return query.scope.study_uid is not None or any(match.path == (UNIQUE[Level.STUDY],) for match in single)


def _keys(row: Row) -> Keys:
    """What computed attributes are counted by."""
    return {
        name: row[place]
        for name, place in (("patient_pk", 1), ("study_pk", 2), ("series_pk", 3))
        if row[place]
    }


def _attributes(row: Row, extra: Attributes) -> Attributes:
    """All attributes of a row's levels; what two levels keep is the upper one's."""
    uids = zip(("0020000D", "0020000E", "00080018", "00080016"), row[9:13], strict=True)
    known: Attributes = {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids if uid is not None}
    patient, study, series, instance = (attributes or {} for attributes in row[5:9])
    return {**instance, **series, **study, **patient, **known, **extra}
