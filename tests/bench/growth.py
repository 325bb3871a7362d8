"""How the catalog grows: bytes per instance and per study, and database time per admission, in catalogs of
10⁴, 10⁵ and 10⁶ instances.

    python -m tests.bench growth

The rows are made by SQL after the pattern of a CT instance that was really taken in (its kept attributes,
its packed header), PER_STUDY of them a study; on top of them instances are admitted one after another as
intake does it, and what the database's processes burn meanwhile is counted.
"""

import math
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import conninfo, sql
from rich.table import Table

from chaos.bench import flood
from node.adapters.blobs_memory import MemoryBlobs
from node.adapters.catalog_postgres.catalog import PostgresCatalog
from node.adapters.catalog_postgres.migrate import migrate
from node.adapters.catalog_postgres.rows import json_text
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.domain.header import HeaderReader, Limits
from node.domain.levels import identify
from node.domain.model import Actor, AuditEvent, InstanceRecord, StoredObject
from node.services.ingest import Ingest
from node.services.objects import Objects
from tests.bench import population, scu
from tests.bench.servers import descendants

PER_STUDY = 200
ADMITTED = 2000
SENDER = Actor("GROWTH", "127.0.0.1", "dimse")

_SIZES = """
SELECT pg_total_relation_size('instances'),
       pg_total_relation_size('patients') + pg_total_relation_size('studies')
         + pg_total_relation_size('series')
"""


def record_of(image: Path, catalog: PostgresCatalog) -> InstanceRecord:
    """What the catalog is told of the image when it is taken in."""
    prepared = scu.prepare(image)
    limits = Limits(max_header_bytes=16 << 20, max_depth=64, max_elements=100_000, max_object_bytes=2 << 30)
    reader = HeaderReader(prepared.syntax, limits)
    reader.feed(prepared.dataset)
    header = reader.finish()
    objects = Objects(MemoryBlobs(), 1 << 20, 1 << 20)
    ingest = Ingest(objects, catalog.instances, catalog.audits, limits, {})
    stored = StoredObject(uuid4().hex, 344, len(prepared.dataset), bytes(32))
    return ingest.record(header, identify(header), stored, SENDER)


def admissions(record: InstanceRecord, count: int) -> Iterator[InstanceRecord]:
    """Fresh instances like it: a study of its own for PER_STUDY of them."""
    for number in range(count):
        if number % PER_STUDY == 0:
            study, series = (flood.fresh(64).decode() for _ in range(2))
        yield replace(
            record,
            study_uid=study,
            series_uid=series,
            sop_instance_uid=flood.fresh(64).decode(),
            stored=replace(record.stored, name=uuid4().hex),
        )


def admit(catalog: PostgresCatalog, record: InstanceRecord, postmaster: int) -> tuple[float, float]:
    """Microseconds of one admission: median on the clock, and mean of the database's CPU time."""
    taken = []
    before = _cpu_seconds(postmaster)
    for each in admissions(record, ADMITTED):
        event = AuditEvent("store", SENDER, study_uids=(each.study_uid,))
        started = time.perf_counter()
        catalog.instances.admit(each, event)
        taken.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken), (_cpu_seconds(postmaster) - before) / ADMITTED * 1e6


def _cpu_seconds(postmaster: int) -> float:
    ticks = 0
    for pid in descendants(postmaster):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, image: Path, sizes: Sequence[int]) -> list[tuple[int, float, float, float, float]]:
    """For each number of instances: itself, bytes per instance, bytes per study (with its patient and
    series), microseconds per admission on the clock and of database CPU."""
    server = EmbeddedPostgres(folder)
    rows = []
    try:
        dsn = server.start()
        postmaster = int((folder / "data" / "postmaster.pid").read_text().split()[0])
        with database(dsn) as growing:
            catalog = PostgresCatalog(
                growing,
                pool_size=2,
                connect_seconds=5,
                statement_seconds=60,
                extra_tags={},
                max_results=1000,
            )
            record = record_of(image, catalog)
            studies = 0
            for size in sizes:
                population.fill(
                    growing,
                    studies + 1,
                    size // PER_STUDY,
                    instances=PER_STUDY,
                    attributes=json_text(record.instance),
                    header=record.header,
                )
                studies = size // PER_STUDY
                with psycopg.connect(growing) as connection:
                    row = connection.execute(_SIZES).fetchone()
                    counted = connection.execute("SELECT count(*) FROM instances").fetchone()
                    above = connection.execute("SELECT count(*) FROM studies").fetchone()
                assert row and counted and above
                clock, cpu = admit(catalog, record, postmaster)
                rows.append((counted[0], row[0] / counted[0], row[1] / above[0], clock, cpu))
            catalog.close()
    finally:
        server.stop()
    return rows


@contextmanager
def database(dsn: str) -> Iterator[str]:
    """An empty catalog."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier("growing")))
    growing = conninfo.make_conninfo(dsn, dbname="growing")
    migrate(growing)
    yield growing


def fitted(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """(a, b) of value = a + b · log₁₀(size), by least squares."""
    logs = [math.log10(size) for size in sizes]
    fit = statistics.linear_regression(logs, list(values))
    return fit.intercept, fit.slope


def table(rows: list[tuple[int, float, float, float, float]]) -> Table:
    """The figures, and the curves through them."""
    names = ("instances", "bytes/instance", "bytes/study", "µs/admission", "µs database CPU/admission")
    shown = Table(*names)
    for row in rows:
        shown.add_row(*(f"{value:,.0f}" for value in row))
    if len(rows) > 1:
        curves = []
        for column in range(1, 5):
            start, slope = fitted([row[0] for row in rows], [row[column] for row in rows])
            curves.append(f"{start:,.0f} {slope:+,.0f}·log₁₀ n")
        shown.add_row("fitted", *curves)
    return shown
