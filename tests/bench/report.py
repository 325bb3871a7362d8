"""What the benchmark's parts share: measuring servers in turn, and the table of ratios."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

from rich.table import Table

from tests.bench.servers import Server

ROUNDS = 3
OURS, THEIRS = "Stele", "Orthanc+PostgreSQL"


class Report:
    """The figures so far: (what, unit, figure by server)."""

    def __init__(self, rounds: int = ROUNDS) -> None:
        self.rounds = rounds
        self.rows: list[tuple[str, str, dict[str, float]]] = []

    def alternate(
        self, what: str, unit: str, measure: Callable[[Server], float], among: Sequence[Server]
    ) -> None:
        """Measure the servers in turn, round by round, and keep the medians; and the CPU time of each
        (database included), which a busy machine disturbs less."""
        taken: dict[str, list[float]] = {server.name: [] for server in among}
        cpu: dict[str, list[float]] = {server.name: [] for server in among}
        for _ in range(self.rounds):
            for server in among:
                before = server.cpu_seconds()
                taken[server.name].append(measure(server))
                cpu[server.name].append((server.cpu_seconds() - before) * 1e3)
        self.keep(what, unit, {name: statistics.median(values) for name, values in taken.items()})
        self.keep("  its CPU time", "ms", {name: statistics.median(values) for name, values in cpu.items()})

    def latencies(
        self, what: str, ask: Callable[[Server], Callable[[], object]], among: Sequence[Server], times: int
    ) -> None:
        """Median, 99th percentile and CPU time of a request, asked `times` times in each round; `ask` makes
        the call. A server that is slow is asked for at most SECONDS a round."""
        taken: dict[str, list[float]] = {server.name: [] for server in among}
        cpu: dict[str, list[float]] = {server.name: [] for server in among}
        for _ in range(self.rounds):
            for server in among:
                before = server.cpu_seconds()
                some = timed(ask(server), times)
                taken[server.name] += some
                cpu[server.name].append((server.cpu_seconds() - before) / len(some) * 1e3)
        self.keep(f"{what}, p50", "ms", {name: statistics.median(some) for name, some in taken.items()})
        self.keep(f"{what}, p99", "ms", {name: percentile(some, 0.99) for name, some in taken.items()})
        self.keep("  its CPU time", "ms", {name: statistics.median(some) for name, some in cpu.items()})

    def keep(self, what: str, unit: str, figures: dict[str, float]) -> None:
        """Add a row."""
        self.rows.append((what, unit, figures))

    def table(self, names: Iterable[str]) -> Table:
        """Figures by server, and the ratio that the targets speak of: ours to Orthanc's."""
        names = list(names)
        shown = Table("", "", *names, "Stele : Orthanc")
        for what, unit, figures in self.rows:
            cells = [f"{figures[name]:,.1f}" if name in figures else "" for name in names]
            ours, theirs = figures.get(OURS), figures.get(THEIRS)
            shown.add_row(what, unit, *cells, f"{ours / theirs:.3g}" if ours and theirs else "")
        return shown


SECONDS = 6.0  # of asking one server one thing in one round


def timed(call: Callable[[], object], times: int) -> list[float]:
    """How long each of up to `times` calls took, in ms; the first one warms up and is not counted."""
    call()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < times and (not taken or time.perf_counter() - began < SECONDS):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
