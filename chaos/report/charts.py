"""Where things are in the drawing of a scenario. Pure; the template draws what it is told.

Upwards what clients were answered in each piece of time, stacked; downwards what failed; below that a lane
that is red while the cluster says that something is wrong, and one with the machine's load.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from chaos.report.figures import Bin, Figures

WIDTH, LEFT, RIGHT = 1000.0, 52.0, 12.0
TOP, UP, DOWN = 34.0, 120.0, 60.0  # heights: labels, answers, failures
LANE, LOAD = 12.0, 34.0
AXIS = 22.0
TICKS = 10  # at the most


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, and what it says when pointed at."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    says: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line or a tick with its label."""

    kind: str
    x: float
    label: str


@dataclass(slots=True)
class Chart:
    """In pixels. `highest` and `deepest`: operations per second at the ends of the upper axis and the
    lower."""

    height: float
    zero_y: float
    lane_y: float
    load_y: float
    highest: float
    deepest: float
    highest_load: float
    boxes: list[Box] = field(default_factory=list)
    shades: list[Box] = field(default_factory=list)
    lanes: list[Box] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    ticks: list[Mark] = field(default_factory=list)
    load: str = ""  # points of a polyline


def chart(of: Figures) -> Chart:
    """The drawing of a scenario."""
    span = max(of.end - of.begin, 1.0)
    scale = (WIDTH - LEFT - RIGHT) / span

    def x(moment: float) -> float:
        return round(LEFT + (min(max(moment, of.begin), of.end) - of.begin) * scale, 1)

    highest = max((each.stored + each.read for each in of.bins), default=0) or 1
    deepest = max((each.refused + each.unknown for each in of.bins), default=0) or 1
    zero_y = TOP + UP
    lane_y = zero_y + DOWN + 8
    load_y = lane_y + LANE + 8
    drawn = Chart(
        height=load_y + LOAD + AXIS,
        zero_y=zero_y,
        lane_y=lane_y,
        load_y=load_y,
        highest=highest / of.width,
        deepest=deepest / of.width,
        highest_load=max((load for _, load in of.load), default=0.0),
    )
    for each in of.bins:
        left, width = x(each.begin), round(max(of.width * scale - 0.5, 0.5), 1)
        stored, read = UP * each.stored / highest, UP * each.read / highest
        refused, unknown = DOWN * each.refused / deepest, DOWN * each.unknown / deepest
        for kind, top, height in (
            ("stored", zero_y - stored, stored),
            ("read", zero_y - stored - read, read),
            ("refused", zero_y, refused),
            ("unknown", zero_y + refused, unknown),
        ):
            if height:
                drawn.boxes.append(Box(kind, left, round(top, 1), width, round(height, 1), _said(each)))
    _faults(drawn, of, x)
    _lanes(drawn, of, x)
    drawn.ticks = [Mark("tick", x(moment), f"{moment:g} s") for moment in ticks(of.begin, of.end)]
    return drawn


def _said(of: Bin) -> str:
    counts = f"{of.stored} stored, {of.read} read, {of.refused} refused, {of.unknown} unknown"
    return f"from {of.begin:g} s on: {counts}"


def _faults(drawn: Chart, of: Figures, x: Callable[[float], float]) -> None:
    """The fault, its healing, and the longest silence of clients."""
    made, healed = of.moments.get("made"), of.moments.get("healed")
    if made is not None:
        end = of.end if healed is None else healed
        drawn.shades.append(_column("fault", x(made), x(end), TOP, drawn.zero_y + DOWN))
        drawn.marks.append(Mark("made", x(made), "fault"))
    if healed is not None:
        drawn.marks.append(Mark("healed", x(healed), "healed"))
    if (whole := of.moments.get("whole")) is not None:
        drawn.marks.append(Mark("whole", x(whole), "all is well"))
    if of.gap is not None:
        says = f"no acknowledgement for {of.gap.seconds:.1f} s"
        drawn.shades.append(
            _column("gap", x(of.gap.begin), x(of.gap.end), drawn.zero_y - 5, drawn.zero_y, says)
        )


def _lanes(drawn: Chart, of: Figures, x: Callable[[float], float]) -> None:
    """What the cluster said, and the machine's load."""
    ends = [moment for moment, _ in of.troubles[1:]] + [of.end]
    for (begin, said), end in zip(of.troubles, ends, strict=False):
        kind = "trouble" if said else "well"
        says = "; ".join(said) or "all is well"
        drawn.lanes.append(_column(kind, x(begin), x(end), drawn.lane_y, drawn.lane_y + LANE, says))
    if drawn.highest_load:
        points = ((x(at), drawn.load_y + LOAD * (1 - load / drawn.highest_load)) for at, load in of.load)
        drawn.load = " ".join(f"{left:g},{top:.1f}" for left, top in points)


def _column(kind: str, left: float, right: float, top: float, bottom: float, says: str = "") -> Box:
    return Box(kind, left, top, round(max(right - left, 1.0), 1), round(bottom - top, 1), says)


def ticks(begin: float, end: float) -> Sequence[float]:
    """Round numbers from `begin` to `end`, zero among them if it lies there; `TICKS` at the most."""
    steps = (step * 10**power for power in range(7) for step in (1, 2, 5))
    step = next((each for each in steps if (end - begin) / each < TICKS), 5e6)
    first = -(-begin // step)
    return [(first + number) * step for number in range(int(end // step - first) + 1)]
