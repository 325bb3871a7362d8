"""A search's statements, as few and as cheap as they can be.

Each is a transaction of its own, and the first one carries the search's audit row: nothing is read before
it is certain that the row stays, and no statement is spent on beginning and ending a transaction. So most
of what a search takes beside the looking itself is one commit.

What looks for keys is planned for its own values, since a plan made for any value is a bad plan for most;
but where a key that is given once names one row, any plan is that key's index, and is made once. What
completes rows by their keys is always the same and always by index: it is prepared, too.
"""

from collections.abc import Iterable
from typing import Any

from psycopg import sql

from node.adapters.catalog_postgres.audits import event_parameters, write_event
from node.adapters.catalog_postgres.pool import COMMIT_SECONDS, CatalogConnection, hang_up_after
from node.domain.model import AuditEvent

Row = tuple[Any, ...]

_AUDITED = sql.SQL(
    "WITH audited AS (INSERT INTO audit_events"
    " (action, outcome, actor, address, protocol, study_uids, detail)"
    " VALUES (%s, %s, %s, %s, %s, %s::text[], %s::jsonb)) "
)


# Wrapped, so that the planner cannot see how many there are this time: it then finds its general plan as good
# as one for these keys, and keeps it.
KEYS = "unnest((SELECT %s::bigint[]))"


class Asking:
    """Reads on one connection in autocommit mode, the first of them together with `event`."""

    def __init__(self, connection: CatalogConnection, event: AuditEvent | None) -> None:
        self._connection = connection
        self._event = event

    def keys(self, text: sql.Composed, parameters: Iterable[Any], *, by_unique: bool = False) -> list[Row]:
        """The rows of a SELECT, planned for these parameters unless it enters `by_unique` key."""
        event, self._event = self._event, None
        if event is None:
            return self._connection.execute(text, list(parameters), prepare=by_unique).fetchall()
        told = [*event_parameters(event).values(), *parameters]
        with hang_up_after(self._connection, COMMIT_SECONDS):
            rows = self._connection.execute(_AUDITED + text, told, prepare=by_unique).fetchall()
        self._connection.confirm()
        return rows

    def by_keys(self, text: str, keys: Iterable[int]) -> list[Row]:
        """The rows of a constant SELECT whose one parameter is an array of keys, `KEYS` in the text."""
        array = "{" + ",".join(map(str, keys)) + "}"
        return self._connection.execute(text.encode(), (array,), prepare=True).fetchall()

    def finish(self) -> None:
        """The search is over; the event is written also if nothing had to be read."""
        event, self._event = self._event, None
        if event is not None:
            with hang_up_after(self._connection, COMMIT_SECONDS):
                write_event(self._connection, event)
            self._connection.confirm()
