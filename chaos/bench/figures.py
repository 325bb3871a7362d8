"""What was measured, as medians and as ratios with their targets. Pure."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

ASSOCIATIONS = (4, 8)
STUDIES = (1, 4)


@dataclass(slots=True)
class Figure:
    """MB/s in each round; in the same order the load average at its end, and the seconds of processor time
    that programs took."""

    what: str
    values: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    processors: list[dict[str, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Of all rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Two figures by name, and what the first has to be of the second; without a target it is only told."""

    what: str
    ours: str
    theirs: str
    target: float | None = None


def intake(associations: int) -> str:
    """The name of a figure: intake through the virtual IP."""
    return f"intake x{associations}"


def degraded(associations: int) -> str:
    """The same without one of the hosts."""
    return f"intake x{associations}, host off"


def embedded(associations: int) -> str:
    """The same into the archive on its embedded defaults."""
    return f"embedded x{associations}"


def studies(count: int) -> str:
    """So many studies retrieved at once."""
    return f"studies x{count}"


def rados(mode: str, concurrency: int) -> str:
    """`rados bench`'s modes are write and rand."""
    return f"rados {mode} x{concurrency}"


RATIOS = (
    *(Ratio(f"{intake(n)} : rados bench", intake(n), rados("write", n), 0.7) for n in ASSOCIATIONS),
    *(Ratio(f"{degraded(n)} : before", degraded(n), intake(n), 0.6) for n in ASSOCIATIONS),
    *(Ratio(f"{studies(n)} : rados bench", studies(n), rados("rand", n), 0.7) for n in STUDIES),
    *(Ratio(f"{intake(n)} : embedded", intake(n), embedded(n)) for n in ASSOCIATIONS),
)


def ratio(figures: Mapping[str, Figure], wanted: Ratio) -> float:
    """Of the medians. KeyError if one was not measured."""
    return figures[wanted.ours].median / figures[wanted.theirs].median


def as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Everything, as plain values."""
    return {
        "figures": [{**asdict(each), "median": each.median} for each in figures.values()],
        "ratios": [{**asdict(each), "is": ratio(figures, each)} for each in RATIOS],
    }


def table(figures: Mapping[str, Figure]) -> Table:
    """Ratios, with the medians and the load averages that they come from."""
    shown = Table("", "MB/s", "beside", "ratio", "target", "load average")
    for each in RATIOS:
        ours, theirs, found = figures[each.ours], figures[each.theirs], ratio(figures, each)
        loads = "/".join(f"{statistics.median(figure.loads):.1f}" for figure in (ours, theirs))
        medians = f"{ours.median:.1f}", f"{theirs.median:.1f}"
        shown.add_row(each.what, *medians, f"{found:.2f}", _target(each, found), loads)
    return shown


def _target(wanted: Ratio, found: float) -> str:
    if wanted.target is None:
        return ""
    return f"{wanted.target:g} {'met' if found >= wanted.target else 'missed'}"
