"""Objects that no row needs any more."""

from collections.abc import Sequence

from node.adapters.catalog_postgres.pool import Pool


class PostgresSurplus:
    """`node.ports.Surplus` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def take(self, limit: int) -> list[str]:
        """Names handed over, oldest first; they stay until `done`."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT object_name FROM surplus ORDER BY since, object_name LIMIT %s", (limit,)
            ).fetchall()
        return [str(row[0]) for row in rows]

    def done(self, names: Sequence[str]) -> None:
        """These objects are gone from the store."""
        with self._pool.transaction() as connection:
            connection.execute("DELETE FROM surplus WHERE object_name = ANY (%s)", (list(names),))

    def among(self, names: Sequence[str]) -> set[str]:
        """Those of `names` that are handed over and not done."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT object_name FROM surplus WHERE object_name = ANY (%s)", (list(names),)
            ).fetchall()
        return {str(row[0]) for row in rows}
