"""What alerts and dashboards ask for exists: no query is silent because of a name that nobody tells."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.exporters import asked, known
from tests.monitoring.faults import ROOT, RULES, faults, well
from tests.monitoring.test_alerts import alerts, promtool

DASHBOARDS = sorted((ROOT / "monitoring/dashboards").iterdir())


def panels(path: Path) -> list[dict[str, Any]]:
    """A dashboard's panels that show something."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries(path: Path) -> list[str]:
    """A dashboard's queries, with what Grafana fills in."""
    written = [target["expr"] for panel in panels(path) for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m") for query in written]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ('sum by (le) (rate(a_total{b="c d"}[5m])) / on (host) group_left e > 1e3', {"a_total", "e"}),
        ("absent(a) unless on () max(b{}) == 0 or c offset 15m and vector(0)", {"a", "b", "c"}),
        ('label_replace(max by (x) (a), "host", "$1", "y", "(.*)") < bool 2', {"a"}),
    ],
)
def test_names_are_found(expression: str, names: set[str]) -> None:
    assert asked(expression) == names


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_asks_for_what_there_is(alert: dict[str, Any]) -> None:
    names = asked(alert["expr"])
    assert names
    assert names <= known()


def test_faults_are_told_in_metrics_that_there_are() -> None:
    changed = [series for fault in faults() for series in fault["changed"]]
    assert {series.partition("{")[0] for series in [*well(), *changed]} <= known()


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_what_there_is(path: Path, tmp_path: Path) -> None:
    written = queries(path)
    assert len(written) >= 15
    for query in written:
        assert asked(query) <= known(), query
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(written)]
    parsed = tmp_path / "queries.yml"
    parsed.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(parsed))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_imported(path: Path) -> None:
    """Grafana takes what has these; nothing in it is of one installation only."""
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == f"stele-{path.stem}"
    assert dashboard["schemaVersion"] == 39
    assert [each["type"] for each in dashboard["templating"]["list"]] == ["datasource"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    for panel in panels(path):
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)


def test_no_two_panels_overlap() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            x, y, w, h = (panel["gridPos"][each] for each in "xywh")
            cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
            assert not cells & taken, panel["title"]
            taken |= cells


def test_the_runbook_names_dashboards_and_metrics_that_there_are() -> None:
    text = (RULES.parent / "RUNBOOK.md").read_text()
    titles = {json.loads(path.read_text())["title"].partition(": ")[2].capitalize() for path in DASHBOARDS}
    assert set(re.findall(r'dashboard "([^"]+)"', text)) <= titles
    told = set(re.findall(r"`((?:stele|haproxy)_\w+)`", text))
    assert told <= known() | {name.removesuffix("_bucket") for name in known()}
