"""QIDO-RS and C-FIND in catalogs of 1,000, 50,000 and 1,000,000 studies, beside Orthanc at the first two.

All hold the same population (`population`): ours made by SQL, Orthanc's sent to it as tiny instances. For
the time of that, and not while it is measured, its PostgreSQL does without fsync. Searches ask for the
first 50 results with the attributes that a study list shows, each time for another value; the clients are
plain sockets.
"""

import random
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import psycopg
from psycopg import conninfo, sql

from node.adapters.catalog_postgres.migrate import migrate
from node.adapters.postgres_embedded import EmbeddedPostgres
from node.dimse import command as commands
from node.dimse.command import Command
from tests.archive import running_archive
from tests.bench import population, retrieval, servers
from tests.bench.http import Client
from tests.bench.population import Parameters, element
from tests.bench.report import OURS, Report
from tests.bench.servers import Server
from tests.postgres import debian_programs

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
EXPLICIT = "1.2.840.10008.1.2.1"
RESULTS = 50
PENDING = (0xFF00, 0xFF01)
# Tags of the keys that are searched by, with their VRs
_KEYS = {
    "StudyDate": (0x0008, 0x0020, b"DA"),
    "AccessionNumber": (0x0008, 0x0050, b"SH"),
    "ModalitiesInStudy": (0x0008, 0x0061, b"CS"),
    "PatientName": (0x0010, 0x0010, b"PN"),
    "PatientID": (0x0010, 0x0020, b"LO"),
    "StudyInstanceUID": (0x0020, 0x000D, b"UI"),
}


class Finder:
    """C-FIND on one association; stops at the first RESULTS answers (C-CANCEL), as a work list does."""

    def __init__(self, server: Server) -> None:
        items = retrieval._context(1, FIND, EXPLICIT) + retrieval._user(16384)
        self._socket, self._stream = retrieval._connect(server, items, "BENCH")
        self._number = 0

    def find(self, parameters: Parameters) -> int:
        """How many answers came."""
        self._number = self._number % 65000 + 1
        request = Command(commands.C_FIND_RQ, FIND, self._number, priority=0, dataset_type=0)
        retrieval._send(self._socket, 1, request, identifier(parameters))
        found = 0
        while (answer := self._stream.command()) is not None:
            status = answer[1].status
            if status not in PENDING:
                if status not in (0x0000, 0xFE00):
                    raise RuntimeError(f"C-FIND ends with {status:04X}")
                return found
            found += 1
            if found == RESULTS:
                self._cancel()
        raise ConnectionError("released in the middle of a C-FIND")

    def _cancel(self) -> None:
        cancel = struct.pack("<HHIH", 0, 0x100, 2, 0x0FFF) + struct.pack("<HHIH", 0, 0x120, 2, self._number)
        cancel += struct.pack("<HHIH", 0, 0x800, 2, 0x0101)
        cancel = struct.pack("<HHII", 0, 0, 4, len(cancel)) + cancel
        self._socket.sendall(struct.pack(">BxIIBB", 4, len(cancel) + 6, len(cancel) + 2, 1, 3) + cancel)

    def close(self) -> None:
        """Release."""
        retrieval._release(self._socket)


def identifier(parameters: Parameters) -> bytes:
    """An identifier at STUDY level with these matches, asking for what a study list shows."""
    given = dict(parameters)
    elements = [(0x0008, 0x0052, b"CS", "STUDY")]
    elements += [(*place, given.get(name, "")) for name, place in _KEYS.items()]
    return b"".join(element(*each) for each in sorted(elements))


def qido(server: Server, what: str, studies: int) -> Callable[[], object]:
    """A QIDO-RS search for another value with each call."""
    client = Client(server.dicomweb or "")
    values = population.values(studies, what, 7)
    return lambda: client.get(f"/studies?{urlencode(next(values))}&limit={RESULTS}", "application/dicom+json")


def c_find(finder: Finder, what: str, studies: int) -> Callable[[], object]:
    """A C-FIND for another value with each call."""
    values = population.values(studies, what, 11)
    return lambda: finder.find(next(values))


@contextmanager
def catalogs(folder: Path, sizes: list[int]) -> Iterator[dict[int, str]]:
    """Databases of so many studies each, on one embedded server."""
    server = EmbeddedPostgres(folder / "catalogs")
    try:
        dsn = server.start()
        made = {}
        for size in sizes:
            name = f"studies_{size}"
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            made[size] = conninfo.make_conninfo(dsn, dbname=name)
            migrate(made[size])
            population.fill(made[size], 1, size)
        yield made
    finally:
        server.stop()


@contextmanager
def ours(folder: Path, dsn: str, size: int) -> Iterator[Server]:
    """The archive on a catalog."""
    data = folder / f"archive-{size}"
    with running_archive(data, environment={"STELE_CATALOG__DSN": dsn}) as run:
        root = f"{run.base_url}/dicom-web"
        yield Server(OURS, run.dicom_port, "STELE", True, run.process.pid, folder, root)


@contextmanager
def without_fsync(server: Server) -> Iterator[None]:
    """Orthanc's database does without, for filling it."""
    postgres = EmbeddedPostgres(server.folder / "postgres", programs=debian_programs())
    dsn = postgres.start()  # attaches: it is running

    def say(value: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET fsync = {value}")
            connection.execute(f"ALTER SYSTEM SET synchronous_commit = {value}")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CHECKPOINT")

    say("off")
    try:
        yield
    finally:
        say("on")


def measure(report: Report, studies: list[int], beside: list[int], times: int, folder: Path) -> None:
    """The searches in catalogs of so many `studies`; at those sizes in `beside` also Orthanc's."""
    with ExitStack() as stack:
        made = stack.enter_context(catalogs(folder, studies))
        orthanc = stack.enter_context(servers.orthanc(stack.enter_context(servers.folder_for("orthanc"))))
        sent = 0
        for size in studies:
            with ours(folder, made[size], size) as stele:
                among = [stele]
                if size in beside:
                    with without_fsync(orthanc):
                        population.send(orthanc, population.rows(made[size], sent + 1, size))
                    sent = size
                    among = [orthanc, stele]
                _measure(report, among, size, times)
    _growth(report, studies)


def _measure(report: Report, among: list[Server], size: int, times: int) -> None:
    for what in population.searches(1, random.Random()):
        report.latencies(f"QIDO-RS {what}, {size:,}", partial(qido, what=what, studies=size), among, times)
    finders = {server.name: Finder(server) for server in among}
    for what in population.searches(1, random.Random()):
        report.latencies(
            f"C-FIND {what}, {size:,}",
            lambda server, what=what: c_find(finders[server.name], what, size),  # type: ignore[misc]
            among,
            times,
        )
    for finder in finders.values():
        finder.close()


def _growth(report: Report, studies: list[int]) -> None:
    """What the largest catalog takes against the smallest."""
    figures = {what: values for what, _, values in report.rows}
    low, high = f"{studies[0]:,}, p99", f"{studies[-1]:,}, p99"
    for what in [each for each in figures if each.endswith(f", {low}")]:
        name = what.removesuffix(f", {low}")
        few, many = figures[what][OURS], figures[f"{name}, {high}"][OURS]
        report.keep(f"{name}: p99 at {studies[-1]:,} to {studies[0]:,}", "×", {OURS: many / few})
