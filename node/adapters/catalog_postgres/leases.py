"""Who does a periodic job now: one row per job, by the database's clock alone."""

from node.adapters.catalog_postgres.pool import Pool
from node.domain.model import Lease

_ACQUIRE = """
INSERT INTO leases (name, holder, fence, expires_at)
VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (name) DO UPDATE
SET holder = excluded.holder, expires_at = excluded.expires_at,
    fence = leases.fence + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END
WHERE leases.holder = excluded.holder OR leases.expires_at < clock_timestamp()
RETURNING fence
"""

# The row stays, so that the fence goes on from there.
_RELEASE = """
UPDATE leases SET expires_at = '-infinity'
WHERE name = %(name)s AND holder = %(holder)s AND fence = %(fence)s
"""


class PostgresLeases:
    """`node.ports.Leases` on PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def acquire(self, name: str, holder: str, seconds: float) -> Lease | None:
        """Take or renew the lease; None while somebody else holds it."""
        parameters = {"name": name, "holder": holder, "seconds": seconds}
        with self._pool.transaction() as connection:
            row = connection.execute(_ACQUIRE, parameters).fetchone()
        return Lease(name, holder, int(row[0])) if row else None

    def release(self, lease: Lease) -> None:
        """Give it back early; harmless if it was lost."""
        parameters = {"name": lease.name, "holder": lease.holder, "fence": lease.fence}
        with self._pool.transaction() as connection:
            connection.execute(_RELEASE, parameters)
