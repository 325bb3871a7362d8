"""`make bench`: the archive beside its peers, in one run, as ratios.

    python -m tests.bench [--quick] [--json FILE] [PART …]

Parts: intake, retrieval (C-GET, C-MOVE), web (WADO-RS), stow, restart, queries, growth; all of them if none
is named. Each measurement alternates between the servers (A B C D, A B C D, …), three times, and takes
medians: an absolute figure holds for this machine on this day, a ratio for longer; CPU time is told beside
it, which a busy machine disturbs least. Servers get TCP_NODELAY, without which DCMTK's and Orthanc's answers
wait for 40 ms each. storescp and pynetdicom promise nothing when they acknowledge; Orthanc
(SyncStorageArea, PostgreSQL index with fsync) and Stele are durable.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileDataset
from rich.console import Console

from tests import corpus
from tests.bench import growth, queries, retrieval, scu, servers, web
from tests.bench.report import Report
from tests.bench.servers import Server


@dataclass(frozen=True)
class Size:
    """How much a run does."""

    ct: int = 400
    mr: int = 600
    cr: int = 40
    big: int = 8
    slices: int = 200
    repeats: int = 200
    stow: int = 400
    metadata: int = 1000
    studies: tuple[int, ...] = (1000, 50_000, 1_000_000)
    beside: tuple[int, ...] = (1000, 50_000)  # of those, at which Orthanc is asked, too
    searches: int = 100
    instances: tuple[int, ...] = (10_000, 100_000, 1_000_000)


QUICK = Size(
    ct=40,
    mr=40,
    cr=8,
    big=2,
    slices=40,
    repeats=20,
    stow=100,
    metadata=100,
    studies=(1000, 10_000),
    beside=(1000,),
    searches=20,
    instances=(1000, 10_000),
)
PARTS = ("intake", "retrieval", "web", "stow", "restart", "queries", "growth")


class Bench(Report):
    """Runs the measurements."""

    def __init__(self, size: Size, images: dict[str, Path]) -> None:
        super().__init__()
        self.size = size
        self.images = images
        self.servers: list[Server] = []

    def run(self, part: str, folder: Path) -> None:
        """One part, with the servers that it needs."""
        if part == "queries":
            queries.measure(self, list(self.size.studies), list(self.size.beside), self.size.searches, folder)
            return
        if part == "restart":
            web.after_restart(self, self.images["mr"], self.size.metadata)
            return
        with ExitStack() as stack:
            names = servers.ALL if part == "intake" else ("orthanc", "stele")
            self.servers = [
                stack.enter_context(servers.ALL[name](stack.enter_context(servers.folder_for(name))))
                for name in names
            ]
            if part == "intake":
                self.intake()
            elif part == "retrieval":
                retrieval.measure(self, self.servers, self.size.slices)
            elif part == "web":
                web.retrieval(self, self.servers, self.images["ct"], self.size.slices, self.size.repeats)
            else:
                web.stow(self, self.servers, self.images, self.size.stow)

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


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures to a file, too")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    servers.raise_file_limit()
    console = Console(width=150)
    size = QUICK if options.quick else Size()
    with tempfile.TemporaryDirectory(prefix="stele-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        bench = Bench(size, prepared_images(folder))
        for part in options.parts or PARTS:
            console.print(f"measuring {part} … (load average {os.getloadavg()[0]:.1f})")
            if part == "growth":
                console.print(
                    growth.table(growth.measure(folder / "growth", bench.images["ct"], size.instances))
                )
            else:
                bench.run(part, folder)
    names = dict.fromkeys(name for _, _, figures in bench.rows for name in figures)
    console.print(bench.table(names))
    console.print(
        f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, medians of {bench.rounds} rounds"
    )
    if options.json:
        figures = [{"what": what, "unit": unit, **values} for what, unit, values in bench.rows]
        options.json.write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
