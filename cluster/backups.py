"""The catalog's backups and its archived log: asked of pgBackRest and PostgreSQL, told as metrics.

A timer on each host that has either writes them to where prometheus-node-exporter reads what others measure
(its textfile collector). A member's log waits while the repository is away: pgBackRest keeps up to the
queue's length of it and drops it beyond, so that the primary's disk never fills; recovery to a moment then
has a gap until the next backup. Hence the metric of what waits.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from cluster.render.backup import queue_bytes
from cluster.topology import Host

STANZA = "stele"
FILE = Path("/var/lib/prometheus/node-exporter/stele-backups.prom")
OVERDUE = timedelta(hours=26)
ANSWER_SECONDS = 10.0
_INFO = ("pgbackrest", f"--stanza={STANZA}", "--output=json", "--io-timeout=5", "info")
_ARCHIVER = """
SELECT json_build_object(
    'waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')
               * pg_size_bytes(current_setting('wal_segment_size')),
    'archived', extract(epoch FROM last_archived_time), 'failed', extract(epoch FROM last_failed_time))
FROM pg_stat_archiver WHERE NOT pg_is_in_recovery()
"""

REGISTRY = CollectorRegistry()
END = Gauge(
    "stele_backup_end_timestamp_seconds",
    "When the newest good backup of the catalog ended, of any kind and full ones; 0 if there is none",
    ["kind"],
    registry=REGISTRY,
)
WAITING = Gauge(
    "stele_archive_waiting_bytes",
    "Log of the primary on this host that is not archived yet",
    registry=REGISTRY,
)
QUEUE = Gauge(
    "stele_archive_queue_bytes", "How much log may wait here before it is dropped", registry=REGISTRY
)
FAILING = Gauge(
    "stele_archive_failing", "Whether the last try of the primary here to archive failed", registry=REGISTRY
)


class BackupsUnknown(Exception):
    """pgBackRest or PostgreSQL did not say; the message says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A good one. `kind`: full, diff or incr; `ended`: seconds since 1970."""

    label: str
    kind: str
    ended: float

    @property
    def at(self) -> datetime:
        """When it ended."""
        return datetime.fromtimestamp(self.ended, UTC)


@dataclass(frozen=True, slots=True)
class Archiver:
    """How the primary's log is archived: bytes that wait, and whether the last try failed."""

    waiting: int
    failing: bool


def parse_info(told: str) -> tuple[Backup, ...]:
    """The backups that are in order, oldest first, out of `pgbackrest info --output=json`; BackupsUnknown."""
    try:
        stanzas: list[Mapping[str, Any]] = json.loads(told)
        return tuple(
            Backup(
                label=str(each["label"]),
                kind=str(each["type"]),
                ended=float(each["timestamp"]["stop"]),
            )
            for stanza in stanzas
            for each in stanza["backup"]
            if not each.get("error")
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupsUnknown(f"pgBackRest not understood: {error!r}") from error


def parse_archiver(told: str) -> Archiver | None:
    """What a member says of its archiving; None of a standby, which archives nothing. BackupsUnknown."""
    if not told.strip():
        return None
    try:
        fields = json.loads(told)
        archived, failed = float(fields["archived"] or 0), float(fields["failed"] or 0)
        return Archiver(int(fields["waiting"]), failed > archived)
    except (ValueError, KeyError, TypeError) as error:
        raise BackupsUnknown(f"PostgreSQL not understood: {error!r}") from error


def backups() -> tuple[Backup, ...]:
    """The good backups, oldest first, asked of pgBackRest on this host; BackupsUnknown."""
    return parse_info(_ask(*_INFO))


def archiver() -> Archiver | None:
    """How the member on this host archives; None if it is a standby. BackupsUnknown."""
    return parse_archiver(_ask("psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", _ARCHIVER))


def measure(host: Host) -> None:
    """Set the metrics that this host tells; BackupsUnknown."""
    if "backup" in host.tiers:
        found = backups()
        END.labels("any").set(max((each.ended for each in found), default=0))
        END.labels("full").set(max((each.ended for each in found if each.kind == "full"), default=0))
    if "postgres" in host.tiers:
        now = archiver() or Archiver(0, failing=False)
        QUEUE.set(queue_bytes(host))
        WAITING.set(now.waiting)
        FAILING.set(now.failing)


def write(host: Host) -> None:
    """Measure, and tell the node exporter, at once or not at all; BackupsUnknown."""
    measure(host)
    write_to_textfile(str(FILE), REGISTRY)


def _ask(*command: str) -> str:
    """What a program says as the catalog's user, who alone may ask."""
    as_postgres = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
    try:
        done = subprocess.run(  # noqa: S603
            (*as_postgres, *command),
            check=True,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()
        raise BackupsUnknown(f"{command[0]}: {said[-1] if said else error.returncode}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackupsUnknown(f"{command[0]}: {type(error).__name__}") from error
    return done.stdout
