"""Each alert fires for its fault, and for no other; when all is well, none does."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.faults import ROOT, RULES, as_promtool, faults
from tests.support import require

RUNBOOK = ROOT / "monitoring/RUNBOOK.md"
PAGE, TICKET = "page", "ticket"


def alerts() -> list[dict[str, Any]]:
    """Every alert of every tier."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(RULES.iterdir())]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def promtool(*arguments: str) -> None:
    """Run promtool; AssertionError with what it says if it fails."""
    require("promtool")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _judge(fault: dict[str, Any], folder: Path) -> None:
    file = folder / "fault.yml"
    file.write_text(as_promtool(fault))
    promtool("test", "rules", str(file))


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", *map(str, sorted(RULES.iterdir())))


@pytest.mark.parametrize(("minutes", "step"), [(40, 15), (1800, 300)], ids=["40 minutes", "30 hours"])
def test_nothing_fires_when_all_is_well(minutes: int, step: int, tmp_path: Path) -> None:
    _judge({"changed": {}, "at": minutes, "step": step, "fires": []}, tmp_path)


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault["name"])
def test_a_fault_is_told_and_nothing_else(fault: dict[str, Any], tmp_path: Path) -> None:
    _judge(fault, tmp_path)


def test_the_judge_notices_an_alert_that_does_not_fire(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FAILED"):
        _judge({"changed": {}, "at": 5, "fires": ["NoPrimary"]}, tmp_path)


def test_every_alert_has_a_fault() -> None:
    fired = {alert.partition(" ")[0] for fault in faults() for alert in fault["fires"]}
    assert fired == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_urgent_it_is_what_is_wrong_and_where_help_is(alert: dict[str, Any]) -> None:
    assert alert["labels"].keys() == {"severity"}
    assert alert["labels"]["severity"] in (PAGE, TICKET)
    assert alert["annotations"].keys() == {"summary", "runbook"}
    assert alert["annotations"]["summary"].endswith((".", "?"))
    assert alert["annotations"]["runbook"] == f"monitoring/RUNBOOK.md#{alert['alert'].lower()}"


def test_the_runbook_has_each_alert_once_with_its_urgency() -> None:
    told = re.findall(r"^### (\w+)\n\n\*\*(\w+)\.\*\* ", RUNBOOK.read_text(), re.MULTILINE)
    assert sorted(told) == sorted((alert["alert"], alert["labels"]["severity"].title()) for alert in alerts())
