"""One seeded run: load, kills, a power cut, healing, bits flipped on the disk, and the judgement.

The moments are drawn by how much has been acknowledged, so that every kill falls into the traffic however
fast the machine is; which one of several processes dies, and who sends what, follow from the seed too.
"""

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos.checks import judge
from chaos.corpus import Corpus
from chaos.history import STORES, History, Result
from chaos.model import Seen, Violation
from chaos.readback.web import wado_each
from chaos.readback.whole import read_everything
from chaos.recovery import longest_gap
from chaos.target import Dicom, Web, WebSession
from chaos.traffic.traffic import Load, Targets, Traffic
from tests.archive import Archive, start_archive
from tests.kills import faults, inspection
from tests.kills.lossy import forget_what_was_not_synced
from tests.support import free_port, wait_until

ROOT = Path(__file__).parents[2]
MORE_KILLS = 3  # beyond one of each kind
TRAFFIC_SECONDS = 240.0
VICTIM_SECONDS = 30.0
HEAL_SECONDS = 90.0
STEADY_SECONDS = 3.0  # beyond the second for which /health/ready keeps an answer
FLIPPED = 12
READS_PER_SECOND = 20.0


@dataclass
class Run:
    """What a run was like."""

    violations: list[Violation]
    history: History
    killed: list[str] = field(default_factory=list)
    forgotten: int = 0  # files that the power cut took, or parts of them
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def broken(self) -> set[str]:
        """The invariants that did not hold."""
        return {each.invariant for each in self.violations}

    def __str__(self) -> str:
        stores = [each for each in self.history.operations if each.kind in STORES]
        ends = {result: sum(each.result is result for each in stores) for result in Result}
        told = ", ".join(f"{count} {result.value}" for result, count in ends.items())
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        gap = longest_gap(self.history.operations)
        gap_seconds = gap.seconds if gap else 0.0
        reads = len(self.history.operations) - len(stores)
        lines = [f"{len(stores)} stores ({told}), {reads} reads, longest gap {gap_seconds:.1f} s; {times}"]
        lines += [f"killed: {', '.join(self.killed)}; forgotten by the power cut: {self.forgotten}"]
        ways = Counter((each.client, each.kind, each.status) for each in self.history.operations)
        lines += [f"{count} × {' '.join(way)}" for way, count in sorted(ways.items())]
        lines += [str(each) for each in self.violations[:20]]
        return "\n".join(lines)


def run(folder: Path, corpus: Corpus, seed: int, *, mutation: str = "") -> Run:
    """Run it in `folder`, which must not exist yet."""
    return _Scenario(folder, corpus, seed, mutation).run()


class _Steady:
    """Whether the archive has been ready for a while: the last kill may be too fresh to show."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._since: float | None = None

    def __call__(self) -> bool:
        if not self._archive.ready():
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > STEADY_SECONDS


class _Scenario:
    def __init__(self, folder: Path, corpus: Corpus, seed: int, mutation: str) -> None:
        self._folder = folder
        self._corpus = corpus
        self._seed = seed
        self._generator = random.Random(seed)
        self._objects = folder / "data" / "objects"
        self._book = folder / "book"
        self._environment = {
            "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent / "inside"), str(ROOT))),
            "KILLS_OBJECTS": str(self._objects),
            "KILLS_BOOK": str(self._book),
            "KILLS_MUTATION": mutation,
            "STELE_LOG_LEVEL": "debug",  # silent even then
        }
        self._ports = free_port(), free_port()
        self._dicom = Dicom("127.0.0.1", self._ports[0])
        self._web = Web(f"http://127.0.0.1:{self._ports[1]}")
        self._pages: list[str] = []

    def run(self) -> Run:
        began = time.monotonic()
        self._folder.mkdir()
        self._run = Run([], History(self._folder / "operations.jsonl"))
        archive = self._archive = self._start()
        try:
            self._lap("start", began)
            targets = Targets([self._dicom], [self._web], [self._web], [self._dicom], [self._web])
            load = Load(read_rate=READS_PER_SECOND)
            traffic = Traffic(targets, self._run.history, self._pages.append, load)
            began = time.monotonic()
            self._send(traffic)
            archive = self._archive  # another one since the power cut
            self._lap("traffic", began)
            began = time.monotonic()
            wait_until(_Steady(archive), HEAL_SECONDS, "the archive heals")
            self._lap("heal", began)
            began = time.monotonic()
            seen = self._read_back(archive)
            self._lap("read back", began)
        finally:
            self._archive.stop()
        rows = [each.row for each in self._corpus.everything]
        self._run.violations = judge(self._run.history.operations, rows, seen)
        return self._run

    def _start(self) -> Archive:
        return start_archive(self._folder / "data", environment=self._environment, ports=self._ports)

    def _lap(self, name: str, began: float) -> None:
        self._run.seconds[name] = time.monotonic() - began

    # --- Traffic and faults ----------------------------------------------------------------------

    def _send(self, traffic: Traffic) -> None:
        """Send everything, with what happens meanwhile."""
        plan = [*faults.FAULTS, *self._generator.choices(faults.FAULTS, k=MORE_KILLS)]
        moments = [(self._generator.uniform(0.02, 0.95), fault) for fault in plan]
        cut_at = self._generator.uniform(0.5, 0.95)
        traffic.start(self._corpus, self._seed)
        deadline = time.monotonic() + TRAFFIC_SECONDS
        try:
            for moment, fault in sorted([*moments, (cut_at, None)], key=lambda each: each[0]):
                self._await(moment, traffic, deadline)
                if fault is None:
                    self._cut_the_power()
                else:
                    self._kill(fault)
            finished = traffic.wait(max(0.0, deadline - time.monotonic()))
            assert finished, f"clients do not finish\n{self._run}"
            assert not traffic.faults, traffic.faults
        finally:
            traffic.stop()

    def _await(self, moment: float, traffic: Traffic, deadline: float) -> None:
        """Until so much has been acknowledged, and a little longer."""
        wanted = moment * len(self._corpus)
        while self._run.history.acknowledged < wanted and traffic.sending:
            assert time.monotonic() < deadline, f"no progress any more\n{self._run}"
            time.sleep(0.005)
        time.sleep(self._generator.uniform(0, 0.05))

    def _kill(self, fault: faults.Fault) -> None:
        """Kill somebody; if the last kill has left nobody of that kind, wait for a new one."""
        wait_until(
            lambda: faults.kill_one(fault, self._archive, self._generator),
            VICTIM_SECONDS,
            f"a {fault.name} to kill",
        )
        self._run.killed.append(fault.name)

    def _cut_the_power(self) -> None:
        faults.kill_all(self._archive)
        self._run.forgotten = forget_what_was_not_synced(self._objects, self._book)
        self._run.killed.append("everything")
        self._archive = self._start()

    # --- Afterwards ------------------------------------------------------------------------------

    def _read_back(self, archive: Archive) -> Seen:
        everything = self._corpus.everything
        seen = read_everything([self._dicom], [self._web], everything, self._pages.append)
        files = inspection.files_by_uid(archive)
        victims = [each for each in everything if each.uid in files]
        victims = self._generator.sample(victims, min(FLIPPED, len(victims)))
        for each in victims:
            inspection.flip_a_bit(files[each.uid])
        seen.flipped = {each.uid for each in victims}
        seen.from_flipped = {"WADO-RS": wado_each(WebSession(self._web, self._pages.append), victims)}
        seen.findings, seen.orphans = inspection.check(archive)
        seen.leaks = inspection.leaks(archive, self._pages)
        return seen
