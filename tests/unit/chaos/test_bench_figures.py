"""What the cluster's benchmark makes of what it measured."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from chaos.bench import figures, flood, processors, rados
from chaos.bench.figures import RATIOS, Figure
from chaos.lab.shell import LabError

SAID = """hints = 1
  sec Cur ops   started  finished  avg MB/s  cur MB/s last lat(s)  avg lat(s)
    0       0         0         0         0         0           -           0
Total time run:         2.5
Total {mode} made:     {made}
{kind} size:             540672
Object size:            540672
Bandwidth (MB/sec):     45.3
"""


NAMES = {name for each in RATIOS for name in (each.ours, each.theirs)}


def measured(rate: float) -> dict[str, Figure]:
    """Everything at 100 MB/s but what goes through the virtual IP, at `rate` in the middle of three."""
    ours = {figures.intake(count) for count in figures.ASSOCIATIONS}
    values = {name: [1.0, rate if name in ours else 100.0, 1000.0] for name in NAMES}
    return {name: Figure(name, some, [1.0] * 3, [{}] * 3) for name, some in values.items()}


def table(rate: float) -> str:
    text = io.StringIO()
    Console(width=120, file=text).print(figures.table(measured(rate)))
    return text.getvalue()


def test_ratios_are_of_medians_and_held_against_their_targets() -> None:
    lines = [line for line in table(70.0).splitlines() if "intake x8 : rados" in line]
    assert [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines] == [
        ["intake x8 : rados bench", "70.0", "100.0", "0.70", "0.7 met", "1.0/1.0"]
    ]
    found = {each["what"]: each["is"] for each in figures.as_json(measured(69.0))["ratios"]}
    assert found["intake x4 : rados bench"] == pytest.approx(0.69)
    assert found["intake x4, host off : before"] == pytest.approx(100 / 69)


def test_a_target_that_is_missed_says_so() -> None:
    assert table(69.0).count("0.7 missed") == len(figures.ASSOCIATIONS)


@pytest.mark.parametrize(("mode", "kind"), [("writes", "Write"), ("reads", "Read")])
def test_what_rados_bench_says_is_taken_by_operations_and_time(mode: str, kind: str) -> None:
    assert rados.rate(SAID.format(mode=mode, kind=kind, made=200)) == 200 * 540672 / 2.5


@pytest.mark.parametrize("said", ["", "error during benchmark: (5) Input/output error", SAID[:300]])
def test_what_else_it_says_is_an_error(said: str) -> None:
    with pytest.raises(LabError, match="rados bench says"):
        rados.rate(said)


def test_processor_time_is_told_by_program() -> None:
    before = processors.seconds()
    began = time.process_time()
    while time.process_time() - began < 0.3:
        pass
    name = Path("/proc/self/comm").read_text().strip()
    assert processors.used(before, processors.seconds(), least=0.0)[name] >= 0.2
    earlier = {("a", 1): 1.0, ("c", 4): 9.0}
    later = {("a", 1): 1.05, ("b", 2): 0.25, ("b", 3): 0.25, ("c", 5): 2.0}
    assert processors.used(earlier, later) == {"c": 2.0, "b": 0.5}


def test_the_image_has_the_uids_that_are_replaced() -> None:
    image = flood.ct(1)
    assert len(image.dataset) > 2 * 512 * 512
    for uid in (image.instance_uid, image.study_uid, image.series_uid):
        assert image.dataset.count(uid) == 1
        other = flood.fresh(len(uid))
        assert len(other) == len(uid)
        assert other != flood.fresh(len(uid))
