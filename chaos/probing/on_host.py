"""Runs on a host, handed to its Python as a text: python -c TEXT DSN PROBES-PER-SECOND.

Prints a JSON line for each write that was acknowledged: its timeline, and the seconds of CLOCK_MONOTONIC at
which it began and ended. Prints nothing for what was not: a standby, a server that is away, a commit whose
wait for a standby was given up (PostgreSQL then warns, and has committed on this server only). Ends when its
standard input does.
"""

import json
import select
import sys
import time

import psycopg

CONNECT_SECONDS = 2
TABLE = "CREATE TABLE IF NOT EXISTS stele_probes (id integer PRIMARY KEY, number bigint NOT NULL)"
WRITE = """
INSERT INTO stele_probes VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET number = stele_probes.number + 1
"""
IN_RECOVERY = "SELECT pg_is_in_recovery()"
# What is being written to now; the control file would tell of it only after a checkpoint
TIMELINE = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"


class Prober:
    """Probes one server; connects anew whenever it has to."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[tuple[int, ...]] | None = None
        self._warnings = 0

    def probe(self) -> dict[str, float] | None:
        """One write: "timeline", "began", "ended"; None if it was not acknowledged."""
        try:
            connection = self._connection or self._connect()
            if _value(connection, IN_RECOVERY):
                return None
            self._warnings = 0
            began = time.monotonic()
            with connection.transaction():
                connection.execute(WRITE)
                timeline = _value(connection, TIMELINE)
            ended = time.monotonic()
        except psycopg.Error:
            self.close()
            return None
        return None if self._warnings else {"timeline": timeline, "began": began, "ended": ended}

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> "psycopg.Connection[tuple[int, ...]]":
        self._connection = psycopg.connect(self._dsn, connect_timeout=CONNECT_SECONDS, autocommit=True)
        self._connection.add_notice_handler(self._noticed)
        if not _value(self._connection, IN_RECOVERY):
            self._connection.execute("SET client_min_messages = warning")  # that the table exists is no news
            self._connection.execute(TABLE)
        return self._connection

    def _noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        self._warnings += notice.severity_nonlocalized == "WARNING"


def _value(connection: "psycopg.Connection[tuple[int, ...]]", query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else 0


def main(dsn: str, rate: float) -> None:
    """Probe until standard input ends."""
    prober = Prober(dsn)
    while not select.select([sys.stdin], [], [], 1 / rate)[0]:
        told = prober.probe()
        if told is not None:
            print(json.dumps(told), flush=True)
    prober.close()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
