"""A cluster of which nothing is there but what scenarios and campaigns ask it: for tests of their order."""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from chaos import corpus, history
from chaos.deployed import ROOT, Deployed, Entrance
from chaos.faults import Fault, Injected
from chaos.lab.host import Host
from chaos.lab.lab import Lab
from chaos.lab.shell import LabError
from chaos.model import Listing, Seen
from chaos.readback.whole import save


class Cluster(Deployed):
    """Notes what happens to it as (what, moment). `ill`: what is wrong with it whenever it shall be well."""

    def __init__(self, folder: Path) -> None:
        network = SimpleNamespace(heal=lambda: None)
        lab = cast(Lab, SimpleNamespace(hosts={}, folder=folder, network=network))
        (folder / "token").write_text("secret")
        super().__init__(lab, Entrance("192.0.2.1", "pacs.example", folder / "ca", folder / "token"))
        self.folder = folder
        self.happened: list[tuple[str, float]] = []
        self.ill: list[str] = []
        self.lost: set[str] = set()  # acknowledged, and gone
        self.read: list[Path] = []  # histories that were read back
        self.clients: list[subprocess.Popen[bytes]] = []

    def note(self, what: str) -> None:
        self.happened.append((what, time.monotonic()))

    @property
    def order(self) -> list[str]:
        """What happened, in its order; what was asked again at once counts once."""
        return [what for what, _ in groupby(what for what, _ in self.happened)]

    def first(self, what: str, after: float = 0.0) -> float:
        """The moment at which it happened first, after another one."""
        return next(moment for each, moment in self.happened if each == what and moment > after)

    def status(self) -> dict[str, Any]:
        return {"troubles": self.ill}

    def wait_well(self, seconds: float) -> float:
        self.note("well")
        if self.ill:
            raise LabError("; ".join(self.ill))
        return 0.0

    def traffic(self, history: Path, seed: int, rate: float, seconds: float) -> "subprocess.Popen[bytes]":
        self.note("traffic")
        command = (
            sys.executable,
            "-m",
            "tests.unit.chaos.clients",
            str(history),
            str(seed),
            str(self.folder),
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with history.with_suffix(".log").open("wb") as log:
            self.clients.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        return self.clients[-1]

    def on(self, tier: str) -> list[Host]:
        return []

    def holders(self) -> list[str]:
        return ["host1"]

    def export_audit(self, since: float, out: Path) -> None:
        self.note("audit")
        out.write_text("")

    def check(self, out: Path) -> None:
        self.note("check")
        out.write_text("")

    def read_back(self, histories: list[Path], out: Path, seconds: float) -> None:
        """What the histories say was acknowledged is there, but for what is lost."""
        self.note("read back")
        self.read += histories
        recorded = history.read(histories)
        content = {
            each.uid: each.content
            for each in recorded.operations
            if each.acknowledged and each.uid not in self.lost
        }
        rows = [each.row for each in corpus.all_instances(recorded.corpora) if each.uid in content]
        listing = Listing(
            studies=list(Counter(row.study for row in rows).items()),
            series=list(Counter(row.series for row in rows).items()),
            instances=rows,
        )
        save(Seen({"QIDO-RS": listing}, {"WADO-RS": content}), out)

    def fault(
        self, name: str = "down", *, within: float = 30.0, hold: float = 0.0, lasts: float = 0.2
    ) -> Fault:
        """Nothing is acknowledged for so many seconds, or until it is healed. The victim is a number."""

        def inject(_cluster: Deployed, generator: random.Random) -> Injected:
            self.note("fault")
            (self.folder / "DOWN").touch()
            later = threading.Timer(lasts, self.serve)
            later.daemon = True  # of a fault that only healing ends
            later.start()
            return Injected(str(generator.random()), heal)

        def heal() -> None:
            self.note("heal")
            self.serve()

        return Fault(name, "Tier", "nothing is acknowledged", within, inject, hold)

    def serve(self) -> None:
        (self.folder / "DOWN").unlink(missing_ok=True)

    def dies(self) -> None:
        """The clients do."""
        (self.folder / "DEAD").touch()
