"""The restore drill: what counts as passed, and which findings a deletion explains."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from chaos.cli import app
from chaos.drill import DRILLS, TARGET_SECONDS, Outcome, unexplained

WELL = Outcome("log", 1, 600, 40, 0, 20.0, 200.0, 240.0, [])


def test_a_drill_passes_if_nothing_is_lost_and_it_ends_in_time() -> None:
    assert WELL.passed
    assert not replace(WELL, violations=["durable: lost: 1.2 by WADO-RS"]).passed
    assert not replace(WELL, served=TARGET_SECONDS + 1).passed
    assert json.loads(WELL.line())["restore"] == 200.0


def test_only_missing_objects_of_deleted_instances_are_explained() -> None:
    found = [{"kind": kind, "name": name} for kind, name in (("missing", "1.2"), ("missing", "1.3"))]
    found.append({"kind": "corrupt", "name": "1.2"})
    said = "".join(f"{json.dumps(each)}\n" for each in found)
    assert [json.loads(line) for line in unexplained(said, {"1.2"}).splitlines()] == found[1:]
    assert unexplained(said, set()) == said


@pytest.mark.parametrize("wrong", [["nonsense"], ["log", "nonsense"]])
def test_an_unknown_drill_is_refused_before_anything_is_wiped(wrong: list[str]) -> None:
    done = CliRunner().invoke(app, ["drill", "--out", "unused", *wrong])
    assert done.exit_code == 2
    assert "no such drill: nonsense" in done.output


def test_each_drill_restores_from_something_else() -> None:
    assert len(set(DRILLS.values())) == len(DRILLS) == 3
