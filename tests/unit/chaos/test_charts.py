"""Where things are in a scenario's drawing."""

from hypothesis import given
from hypothesis import strategies as st

from chaos.history import CONFLICT, Operation, Result
from chaos.report.charts import DOWN, LEFT, RIGHT, TICKS, TOP, UP, WIDTH, chart, ticks
from chaos.report.figures import BINS, figures
from chaos.watch import Watched

RESULTS = st.sampled_from(
    [(Result.OK, "0000"), (Result.REFUSED, "A700"), (Result.REFUSED, CONFLICT), (Result.UNKNOWN, "")]
)


@st.composite
def operations(draw: st.DrawFn) -> list[Operation]:
    moments = draw(st.lists(st.floats(0, 5000), min_size=1, max_size=30))
    return [
        Operation("c", "C-STORE", f"1.{number}", "1.2 a", at, at + 0.1, *draw(RESULTS))
        for number, at in enumerate(moments)
    ]


@given(operations(), st.one_of(st.none(), st.floats(0, 5000)))
def test_every_operation_is_drawn_once_and_inside(done: list[Operation], fault: float | None) -> None:
    moments = {} if fault is None else {"made": fault, "healed": fault + 5}
    figured = figures(done, Watched(), moments)
    counted = sum(each.stored + each.read + each.refused + each.unknown for each in figured.bins)
    assert counted == len(done)
    assert len(figured.bins) <= BINS + 2
    assert figured.begin % figured.width == 0  # the fault is between two pieces of time
    drawn = chart(figured)
    for box in (*drawn.boxes, *drawn.shades, *drawn.lanes):
        assert box.x >= LEFT and box.x + box.width <= WIDTH - RIGHT + 1.5
        assert box.y >= TOP - 0.1 and box.y + box.height <= TOP + UP + DOWN + 0.2
    assert len(drawn.ticks) <= TICKS + 1


@given(st.floats(-1e5, 1e5), st.floats(1, 1e5))
def test_ticks_are_round_and_between(begin: float, length: float) -> None:
    found = ticks(begin, begin + length)
    assert 1 <= len(found) <= TICKS + 1 or length < 2
    assert all(begin <= each <= begin + length for each in found)
    assert all(each == int(each) for each in found)


def test_a_scenario_without_a_history_has_a_drawing_too() -> None:
    assert chart(figures([], Watched(), {"made": 5.0})).boxes == []
