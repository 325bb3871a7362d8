"""`make bench`: the archive beside its peers, in one run, as ratios.

    python -m tests.bench [--quick] [--json FILE]

Each measurement alternates between the servers (A B C D, A B C D, …), three times, and takes medians: an
absolute figure holds for this machine on this day, a ratio for longer. Servers get TCP_NODELAY, without
which DCMTK's and Orthanc's answers wait for 40 ms each. storescp and pynetdicom promise nothing when they
acknowledge; Orthanc (SyncStorageArea, PostgreSQL index with fsync) and Stele are durable.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
from pydicom.dataset import Dataset, FileDataset
from pynetdicom import AE, StoragePresentationContexts
from rich.console import Console
from rich.table import Table

from tests import corpus
from tests.bench import scu, servers
from tests.bench.servers import Server

STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
ROUNDS = 3
OURS = "Stele"


@dataclass(frozen=True)
class Size:
    """How much a run does."""

    ct: int = 400
    mr: int = 600
    cr: int = 40
    big: int = 8
    studies: int = 400
    repeats: int = 60
    slices: int = 200


QUICK = Size(ct=40, mr=40, cr=8, big=2, studies=40, repeats=10, slices=40)


class Bench:
    """Runs the measurements and keeps each server's median."""

    def __init__(self, running: list[Server], size: Size, images: dict[str, Path]) -> None:
        self.servers = running
        self.size = size
        self.images = images
        self.rows: list[tuple[str, str, dict[str, float]]] = []

    def alternate(
        self, what: str, unit: str, measure: Callable[[Server], float], among: list[Server]
    ) -> None:
        """Measure the servers in turn, three rounds, and keep the medians."""
        taken: dict[str, list[float]] = {server.name: [] for server in among}
        for _ in range(ROUNDS):
            for server in among:
                taken[server.name].append(measure(server))
        self.rows.append((what, unit, {name: statistics.median(values) for name, values in taken.items()}))

    def intake(self) -> None:
        """Durable intake by image and number of associations, and its CPU time."""
        for name, count, associations in (
            ("ct", self.size.ct, 1),
            ("ct", self.size.ct, 4),
            ("ct", self.size.ct, 8),
            ("mr", self.size.mr, 4),
            ("cr", self.size.cr, 4),
            ("big", self.size.big, 4),
        ):
            cpu: dict[str, list[float]] = {}
            path = self.images[name]

            def rate(
                server: Server,
                path: Path = path,
                count: int = count,
                associations: int = associations,
                cpu: dict[str, list[float]] = cpu,
            ) -> float:
                before = server.cpu_seconds()
                done = scu.run(server.port, server.title, path, max(1, count // associations), associations)
                if done["failed"]:
                    raise RuntimeError(f"{server.name} refused {done['failed']} instances")
                cpu.setdefault(server.name, []).append((server.cpu_seconds() - before) / done["ok"] * 1e3)
                return done["ok"] / done["seconds"]

            self.alternate(f"C-STORE {name.upper()} x{associations}", "inst/s", rate, self.servers)
            used = {name: statistics.median(values) for name, values in cpu.items()}
            self.rows.append((f"  CPU, {name.upper()} x{associations}", "ms/inst", used))

    def queries(self) -> None:
        """C-FIND and QIDO-RS over the same studies."""
        among = [server for server in self.servers if server.dicomweb]
        for server in among:
            _send(server, corpus.many_studies(self.size.studies, 1))
        keys = {
            "PatientID": {"PatientID": "MANY-1-00007"},
            "seven days": {"StudyDate": "20180301-20180307"},
            "name wildcard": {"PatientName": "*TEST*"},
        }
        for what, matching in keys.items():
            self.alternate(f"C-FIND {what}", "ms", partial(self._find, matching), among)
        for what, matching in keys.items():
            self.alternate(f"QIDO-RS {what}", "ms", partial(self._qido, matching), among)

    def retrieval(self) -> None:
        """WADO-RS: a CT study, its metadata, single frames."""
        among = [server for server in self.servers if server.dicomweb]
        study = corpus.Study(seed=99)
        for server in among:
            _send(server, corpus.ct_series(self.size.slices, study=study))
        first = next(iter(corpus.ct_series(1, study=study)))
        path = f"/studies/{first.StudyInstanceUID}"
        series = f"{path}/series/{first.SeriesInstanceUID}"
        frame = f"{series}/instances/{first.SOPInstanceUID}/frames/1"
        part10 = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        octets = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'

        def study_rate(server: Server) -> float:
            started = time.perf_counter()
            size = _get(server, path, part10)
            return size / (time.perf_counter() - started) / 1e6

        self.alternate(f"WADO-RS study of {self.size.slices} CT", "MB/s", study_rate, among)
        for what, address, accept in (
            ("WADO-RS series metadata", f"{series}/metadata", "application/dicom+json"),
            ("WADO-RS frame", frame, octets),
        ):
            self.alternate(what, "ms", partial(self._fetch, address, accept), among)

    def _median_ms(self, call: Callable[[], object]) -> float:
        times = []
        for _ in range(self.size.repeats):
            started = time.perf_counter()
            call()
            times.append((time.perf_counter() - started) * 1e3)
        return statistics.median(times)

    def _fetch(self, address: str, accept: str, server: Server) -> float:
        return self._median_ms(lambda: _get(server, address, accept))

    def _find(self, matching: dict[str, str], server: Server) -> float:
        ae = AE("BENCH")
        ae.add_requested_context(STUDY_FIND)
        association = ae.associate("127.0.0.1", server.port, ae_title=server.title)
        if not association.is_established:
            raise RuntimeError(f"{server.name} takes no C-FIND association")
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "STUDY"
        identifier.StudyInstanceUID = ""
        for keyword, value in matching.items():
            setattr(identifier, keyword, value)

        def ask() -> None:
            for status, _ in association.send_c_find(identifier, STUDY_FIND):
                if status.Status not in (0xFF00, 0xFF01, 0x0000):
                    raise RuntimeError(f"{server.name} answers C-FIND with {status.Status:04X}")

        took = self._median_ms(ask)
        association.release()
        return took

    def _qido(self, matching: dict[str, str], server: Server) -> float:
        query = "&".join(f"{keyword}={value}" for keyword, value in matching.items())
        return self._median_ms(lambda: _get(server, f"/studies?{query}&limit=50", "application/dicom+json"))


def _get(server: Server, path: str, accept: str) -> int:
    answer = requests.get(
        f"{server.dicomweb}{path}", headers={"Accept": accept, "Accept-Encoding": "identity"}, timeout=300
    )
    if answer.status_code not in (200, 204):
        raise RuntimeError(f"{server.name} answers {path} with {answer.status_code}")
    return len(answer.content)


def _send(server: Server, images: Iterable[FileDataset]) -> None:
    """Load images over C-STORE with pynetdicom."""
    ae = AE("BENCH")
    ae.requested_contexts = StoragePresentationContexts[:120]
    association = ae.associate("127.0.0.1", server.port, ae_title=server.title)
    for image in images:
        status = association.send_c_store(image)
        if status.Status != 0:
            raise RuntimeError(f"{server.name} refuses with {status.Status:04X}")
    association.release()


def prepared_images(folder: Path) -> dict[str, Path]:
    """One image of each kind as a file."""
    images: dict[str, Iterable[FileDataset]] = {
        "ct": itertools.islice(corpus.ct_series(1), 1),
        "mr": itertools.islice(corpus.mr_series(1), 1),
        "cr": [corpus.cr_image()],
    }
    paths = {name: corpus.write(each, folder / name)[0] for name, each in images.items()}
    paths["big"] = corpus.multiframe(folder / "big.dcm", megabytes=50)
    return paths


def table(rows: list[tuple[str, str, dict[str, float]]], names: list[str]) -> Table:
    """Figures by server, and the ratio that the targets speak of: ours to Orthanc's."""
    shown = Table("", "", *names, "Stele : Orthanc")
    for what, unit, figures in rows:
        cells = [f"{figures[name]:,.1f}" if name in figures else "" for name in names]
        ours, theirs = figures.get(OURS), figures.get("Orthanc+PostgreSQL")
        shown.add_row(what, unit, *cells, f"{ours / theirs:.2f}" if ours and theirs else "")
    return shown


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to a file, too")
    options = parser.parse_args()
    servers.raise_file_limit()
    console = Console(width=140)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stele-bench-")))
        images = prepared_images(folder)
        running = [
            stack.enter_context(start(stack.enter_context(servers.folder_for(name))))
            for name, start in servers.ALL.items()
        ]
        bench = Bench(running, QUICK if options.quick else Size(), images)
        for part in (bench.intake, bench.queries, bench.retrieval):
            console.print(f"measuring {part.__name__} …")
            part()
    console.print(table(bench.rows, [server.name for server in running]))
    console.print(
        f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {ROUNDS} rounds"
    )
    if options.json:
        figures = [{"what": what, "unit": unit, **values} for what, unit, values in bench.rows]
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
