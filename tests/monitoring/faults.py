"""Faults as promtool's unit tests of rules: series in, exactly the alerts that fire out."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
RULES = ROOT / "monitoring/rules"
HOSTS = ("a", "b", "c")
STEP_SECONDS = 15
_HOST = re.compile(r'\bhost="([^"]+)"')


def well() -> dict[str, Any]:
    """The series of a cluster in which all is well, each with its values."""
    return _each_host(yaml.safe_load((FOLDER / "well.yml").read_text()))


def faults() -> list[dict[str, Any]]:
    """The faults; see the file."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / "faults.yml").read_text())
    return found


def as_promtool(fault: dict[str, Any]) -> str:
    """A file for `promtool test rules`: at minute `quiet` nothing fires, at minute `at` just `fires`."""
    step = fault.get("step", STEP_SECONDS)
    steps = int(fault["at"] * 60 / step) + 1
    given = {**well(), **_each_host(fault["changed"])}
    if "away" in fault:
        given = {series: _without(series, value, fault["away"]) for series, value in given.items()}
    looks = [_look(fault["at"], fault["fires"])]
    if "quiet" in fault:
        looks.insert(0, _look(fault["quiet"], []))
    test = {
        "interval": f"{step}s",
        "input_series": [
            {"series": series, "values": _values(value, step, steps)}
            for series, value in given.items()
            if value is not None
        ],
        "promql_expr_test": looks,
    }
    rules = sorted(str(path) for path in RULES.iterdir())
    return json.dumps({"rule_files": rules, "evaluation_interval": f"{step}s", "tests": [test]})


def _each_host(written: dict[str, Any]) -> dict[str, Any]:
    return {series.replace("{host}", host): value for series, value in written.items() for host in HOSTS}


def _without(series: str, value: Any, away: str) -> Any:
    host = _HOST.search(series)
    if host is None or host[1] != away:
        return value
    return 0 if series.startswith("up{") else None


def _values(value: Any, step: int, steps: int) -> str:
    """In promtool's notation."""
    if value == "clock":
        value = f"0+{step}"
    written = str(value)
    return written if re.search(r"[x ]", written) else f"{written}x{steps}"


def _look(minutes: float, alerts: list[str]) -> dict[str, Any]:
    """What fires at a minute: each alert's name, and the host if it has one."""
    samples = []
    for alert in alerts:
        name, _, host = alert.partition(" ")
        on = f',host="{host}"' if host else ""
        samples.append({"labels": f'{{alertname="{name}"{on}}}', "value": 1})
    return {
        "expr": 'group by (alertname, host) (ALERTS{alertstate="firing"})',
        "eval_time": f"{round(minutes * 60)}s",
        "exp_samples": samples,
    }
