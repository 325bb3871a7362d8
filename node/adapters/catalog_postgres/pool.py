"""Connections to PostgreSQL, and what its errors mean to the archive.

A bounded stack of connections, each opened in the thread that wants it. psycopg's own pool opens them
in the background: while the server is away its callers wait for the whole time-out instead of being
told, and after a failover they wait for its back-off. Here a refused connection is a refusal at once.

The invariant of this module: a `transaction()` block that ends without an exception is committed and,
where the server waits for a standby, replicated. Four things can break that, and each ends in
`Refusal(UNAVAILABLE)` instead (the outcome is then unknown, and the client must send again):

* The wait for the synchronous standby is cancelled: PostgreSQL then *succeeds*, with a WARNING. So any
  warning in a transaction counts as "not acknowledged" (the text depends on the server's language).
* The connection ends before the answer to COMMIT.
* The server was demoted: every statement fails with 25006 although `SELECT 1` is content. The
  connection is closed and, since its idle sisters will lead to the same server, so are they.
* The server does not write durably (`fsync`, `synchronous_commit`): checked on every new connection,
  since after a failover it is another server.

`statement_timeout` never cuts a COMMIT short: PostgreSQL disarms it before the commit begins (checked
by the contract suite). What bounds a COMMIT is `COMMIT_SECONDS`: then our side hangs up.
"""

import math
import random
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import conninfo
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from node import metrics
from node.domain.errors import Reason, Refusal

LIFETIME_SECONDS = 300.0  # of a connection, so that load returns to a node that was away
COMMIT_SECONDS = 45.0  # longest wait for COMMIT before we hang up; the outcome is then unknown

# The server behind the connection no longer takes writes, or no longer exists.
_SERVER_GONE = ("25006", "57P01", "57P02", "57P03", "57P05")
# Classes that say "not now": connection, resources, operator, system error, lock time-out, conflict.
_NOT_NOW = ("08", "53", "57", "58", "55P03", "40001", "40P01", "25006")

RV = TypeVar("RV")

# Plans must not depend on how the server happens to be configured. Compiling these queries, or starting
# processes for them, costs more than running them.
_CONFIGURE = """
SELECT set_config('statement_timeout', %s, false), set_config('TimeZone', 'UTC', false),
       set_config('idle_in_transaction_session_timeout', '600s', false),
       set_config('jit', 'off', false), set_config('random_page_cost', '1.1', false),
       set_config('max_parallel_workers_per_gather', '0', false),
       current_setting('synchronous_commit'), current_setting('fsync'),
       current_setting('full_page_writes')
"""


class CatalogConnection(psycopg.Connection[Any]):
    """A connection that remembers whether the server warned since `BEGIN`."""

    warned = False
    retire_at = 0.0
    deadline: float | None = None

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait as psycopg does, but not beyond `deadline`."""
        if timeout is None and self.deadline is not None:
            timeout = max(0.0, self.deadline - time.monotonic())
        return super().wait(gen, interval, timeout)

    def confirm(self) -> None:
        """After COMMIT: raise Refusal(UNAVAILABLE) unless it counts as durable."""
        if self.warned:
            self.close()
            raise Refusal(Reason.UNAVAILABLE, "commit not confirmed by the standby")

    def notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        """Take a notice of the server: warnings spoil the transaction."""
        if diagnostic.severity_nonlocalized == "WARNING":
            self.warned = True


def refusal(error: psycopg.Error) -> Refusal | None:
    """What a driver's error means to a client, or None if it is a fault of ours."""
    state = error.sqlstate
    if state == "53100":
        return Refusal(Reason.STORE_FULL, "the catalog's disk is full")
    if state is None and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Refusal(Reason.UNAVAILABLE, "connection to the catalog lost")
    if state is not None and state.startswith(_NOT_NOW):
        return Refusal(Reason.UNAVAILABLE, f"the catalog does not take this now ({state})")
    return None


def parameters(dsn: str, connect_seconds: float) -> dict[str, Any]:
    """The connection string's parameters, completed with ours where it is silent.

    A dead peer is noticed within about 11 s, and a standby is never mistaken for the primary.
    """
    given = conninfo.conninfo_to_dict(dsn)
    hosts = max(str(given.get("host") or "").count(","), str(given.get("hostaddr") or "").count(",")) + 1
    ours: dict[str, Any] = {
        "application_name": "stele",
        "target_session_attrs": "read-write",
        "connect_timeout": max(2, math.ceil(connect_seconds / hosts)),  # per host; libpq's minimum is 2
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
    }
    return {**ours, **given}


class Pool:
    """At most `size` connections, shared by a process's threads.

    Make it in the process that uses it: connections do not survive a fork.
    """

    def __init__(self, dsn: str, *, size: int, connect_seconds: float, statement_seconds: float) -> None:
        self.size = size
        self._parameters = parameters(dsn, connect_seconds)
        self._connect_seconds = connect_seconds
        self._statement_timeout = f"{int(statement_seconds * 1000)}ms"
        self._slots = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[CatalogConnection] = []
        self._in_use = 0
        self._generation = 0

    @property
    def in_use(self) -> int:
        """Connections lent out now."""
        return self._in_use

    @contextmanager
    def connection(self) -> Iterator[CatalogConnection]:
        """Lend a connection in autocommit mode; driver errors come out as refusals where they are one.

        A transaction left open is rolled back.
        """
        if not self._slots.acquire(timeout=self._connect_seconds):
            raise Refusal(Reason.UNAVAILABLE, "no free connection to the catalog")
        try:
            with self._lock:
                self._in_use += 1
                generation = self._generation
            metrics.POOL_CONNECTIONS.labels("in_use").inc()
            connection: CatalogConnection | None = None
            try:
                connection = self._take()
                connection.warned = False
                yield connection
            except psycopg.Error as error:
                meaning = refusal(error)
                if connection is None or connection.closed or (error.sqlstate or "") in _SERVER_GONE:
                    self.drain()
                if meaning is None:
                    raise
                raise meaning from error
            finally:
                if connection is not None:
                    self._give_back(connection, generation)
        finally:
            metrics.POOL_CONNECTIONS.labels("in_use").dec()
            with self._lock:
                self._in_use -= 1
            self._slots.release()

    @contextmanager
    def transaction(self) -> Iterator[CatalogConnection]:
        """Lend a connection for one transaction: committed (and confirmed) at the end of the block,
        rolled back if it raises."""
        with self.connection() as connection:
            connection.execute("BEGIN")
            yield connection
            with hang_up_after(connection, COMMIT_SECONDS):
                connection.execute("COMMIT")
            connection.confirm()

    def drain(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close everything. The pool is not used afterwards."""
        self.drain()

    def _take(self) -> CatalogConnection:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect()
            if connection.retire_at > time.monotonic() and not _has_something_to_say(connection):
                return connection
            connection.close()

    def _connect(self) -> CatalogConnection:
        connection = CatalogConnection.connect(**self._parameters, autocommit=True, prepare_threshold=2)
        try:
            connection.add_notice_handler(connection.notice)
            row = connection.execute(_CONFIGURE, (self._statement_timeout,)).fetchone()
            assert row is not None  # noqa: S101 - a SELECT without FROM has one row
            _refuse_unsafe(*row[6:])
        except BaseException:
            connection.close()
            raise
        # Spread, so that connections opened together are not all reopened together.
        connection.retire_at = time.monotonic() + LIFETIME_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311
        return connection

    def _give_back(self, connection: CatalogConnection, generation: int) -> None:
        if connection.closed:
            return
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            try:
                connection.execute("ROLLBACK")
            except psycopg.Error:
                connection.close()
                return
        with self._lock:
            current = generation == self._generation
            if current and connection.info.transaction_status == TransactionStatus.IDLE:
                self._idle.append(connection)
                return
        connection.close()


@contextmanager
def hang_up_after(connection: CatalogConnection, seconds: float) -> Iterator[None]:
    """Give up waiting for the server after `seconds` in the block; the connection is then closed."""
    connection.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        connection.deadline = None


def _has_something_to_say(connection: CatalogConnection) -> bool:
    """Whether an idle connection has input waiting: the server said good-bye, or the peer is gone."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _refuse_unsafe(synchronous_commit: str, fsync: str, full_page_writes: str) -> None:
    if synchronous_commit in ("off", "local"):
        raise Refusal(Reason.UNAVAILABLE, f"PostgreSQL has synchronous_commit={synchronous_commit}")
    if fsync != "on":
        raise Refusal(Reason.UNAVAILABLE, f"PostgreSQL has fsync={fsync}")
    if full_page_writes != "on":
        raise Refusal(Reason.UNAVAILABLE, f"PostgreSQL has full_page_writes={full_page_writes}")
