"""What operators could have seen while a scenario ran: what the cluster said was wrong, the machine's load,
and what each tier logged. One small JSON file beside the history.

The cluster is asked by `stele-cluster status` every few seconds; a trouble is kept when it changes.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from chaos.deployed import Deployed
from chaos.journals import Line, condensed, lines_in, of_tiers
from chaos.lab.shell import LabError

LOOK_SECONDS = 2.0  # between two looks at the cluster; each costs a host a second or two
JOURNAL_SECONDS = 60.0


@dataclass(slots=True)
class Watched:
    """`troubles`: what the cluster said from a moment on, in sentences. `load`: the machine's load average at
    a moment. `lines`: of the tiers' logs, by host. Moments are seconds of the history's clock."""

    troubles: list[tuple[float, list[str]]] = field(default_factory=list)
    load: list[tuple[float, float]] = field(default_factory=list)
    lines: dict[str, list[Line]] = field(default_factory=dict)

    def note(self, moment: float, troubles: list[str]) -> None:
        """What the cluster said at a moment."""
        if not self.troubles or self.troubles[-1][1] != troubles:
            self.troubles.append((moment, troubles))
        self.load.append((moment, os.getloadavg()[0]))


_WATCHED = TypeAdapter(Watched)


def load(path: Path) -> Watched:
    """What a file of `watching` holds. OSError; ValueError if it holds something else."""
    return _WATCHED.validate_json(path.read_bytes())


class Watch:
    """Watches a cluster from now on. `begin`: the moment from which on logs are of interest."""

    def __init__(self, cluster: Deployed) -> None:
        self.watched = Watched()
        self.begin = time.monotonic()
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch")
        self._thread.start()

    def end(self) -> None:
        """Look no more, and gather the logs."""
        self._stop.set()
        self._thread.join()
        self._gather(self.begin, time.monotonic())

    def _look(self) -> None:
        while not self._stop.is_set():
            troubles = self._cluster.troubles()
            self.watched.note(time.monotonic(), troubles)
            self._stop.wait(LOOK_SECONDS)

    def _gather(self, begin: float, end: float) -> None:
        since = int(time.time() - (time.monotonic() - begin))
        for host in self._cluster.lab.hosts.values():
            try:
                journal = host.run(*of_tiers(since), seconds=JOURNAL_SECONDS).decode(errors="replace")
            except LabError as error:
                self.watched.lines[host.name] = [Line(end, "", str(error), 1)]
            else:
                self.watched.lines[host.name] = condensed(lines_in(journal), begin, end)


@contextmanager
def watching(cluster: Deployed, path: Path) -> Iterator[Watch]:
    """Watch for the time of a `with` block; what was seen is in the file `path` afterwards."""
    watch = Watch(cluster)
    try:
        yield watch
    finally:
        watch.end()
        path.write_text(json.dumps(asdict(watch.watched)))
