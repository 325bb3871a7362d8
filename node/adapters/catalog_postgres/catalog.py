"""The catalog on PostgreSQL, by subject."""

from collections.abc import Mapping

from node.adapters.catalog_postgres.audits import PostgresAudits
from node.adapters.catalog_postgres.instances import PostgresInstances
from node.adapters.catalog_postgres.leases import PostgresLeases
from node.adapters.catalog_postgres.migrate import require_schema
from node.adapters.catalog_postgres.people import PostgresAccounts, PostgresEntities
from node.adapters.catalog_postgres.pool import Pool
from node.adapters.catalog_postgres.repairs import PostgresRepairs
from node.adapters.catalog_postgres.searches import PostgresSearches
from node.adapters.catalog_postgres.surplus import PostgresSurplus
from node.domain.errors import Reason, Refusal
from node.domain.model import Level


class PostgresCatalog:
    """`node.ports.Catalog` on PostgreSQL, with leases beside it.

    Make it in the process that uses it (connections do not survive a fork). Making it connects once:
    Refusal(UNAVAILABLE) if the server is away or not durable, MigrationError if its schema is too old.

    `extra_tags`: attributes kept per level beyond the standard ones; `max_results`: cap of a search.
    """

    def __init__(
        self,
        dsn: str,
        *,
        pool_size: int,
        connect_seconds: float,
        statement_seconds: float,
        extra_tags: Mapping[Level, tuple[str, ...]],
        max_results: int,
    ) -> None:
        self.pool = Pool(
            dsn, size=pool_size, connect_seconds=connect_seconds, statement_seconds=statement_seconds
        )
        require_schema(self.pool)
        self.instances = PostgresInstances(self.pool)
        self.searches = PostgresSearches(self.pool, extra_tags=extra_tags, max_results=max_results)
        self.audits = PostgresAudits(self.pool)
        self.accounts = PostgresAccounts(self.pool)
        self.entities = PostgresEntities(self.pool)
        self.surplus = PostgresSurplus(self.pool)
        self.repairs = PostgresRepairs(self.pool)
        self.leases = PostgresLeases(self.pool)

    def check(self) -> None:
        """Return if the catalog takes writes now; otherwise raise the Refusal."""
        with self.pool.connection() as connection:
            row = connection.execute(
                "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
            ).fetchone()
        if row != (False,):
            self.pool.drain()
            raise Refusal(Reason.UNAVAILABLE, "the catalog is read-only")

    def close(self) -> None:
        """Release connections. The object is not used afterwards."""
        self.pool.close()
