"""Reports out of a campaign's folder: what they say, and that they say it literally."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from typer.testing import CliRunner

from chaos import report
from chaos.checks import CHECKS
from chaos.cli import app
from chaos.corpus import CANARY
from chaos.folder import Folder
from chaos.history import Operation, Result
from chaos.readback.whole import load, save
from chaos.report.gathered import Report
from chaos.scenario import history_of
from tests.unit.chaos.campaigns import CAMPAIGN, STEPS, outcome, record, whole

HOSTILE = "\x00\x1b</td><script>alert('|')</script>&amp;\n| `a` | \"b\" <img src=x onerror=y>"
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "div", "span", "b", "i", "p", "br"),
    *("table", "tr", "th", "td", "a", "code", "section", "dl", "dt", "dd", "details", "summary", "ul", "li"),
    *("svg", "rect", "line", "text", "polyline"),
}


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def written(folder: Folder) -> tuple[Report, str]:
    """The report and its page, markup and all."""
    told = report.write(folder)
    return told, (folder.path / report.PAGE).read_text()


def cases(folder: Folder) -> dict[str, list[str]]:
    """What JUnit's cases hold, by their names."""

    suite = Xml.fromstring((folder.path / "junit.xml").read_bytes())  # noqa: S314 - our own
    return {case.attrib["name"]: [part.tag for part in case] for case in suite}


def test_a_campaign_that_kept_every_promise(tmp_path: Path) -> None:
    told, html = written(whole(tmp_path))
    assert told.violations == []
    assert told.verdict == "Every promise was kept: 12 acknowledged, 0 violations, 0 of 3 recoveries late."
    assert (told.finished, told.kept) == (True, True)
    assert told.verdict in html
    assert all(f"{fault}-{seed}" in html for fault, seed in STEPS)
    assert list(cases(Folder(tmp_path)).values()) == [[]] * (len(STEPS) + len(CHECKS))
    assert json.loads((tmp_path / "report.json").read_text())["acknowledged"] == 12


def test_figures_of_a_scenario(tmp_path: Path) -> None:
    figures = written(whole(tmp_path))[0].scenarios[0].figures
    assert (figures.retries, figures.deletions) == (2, 1)
    assert figures.noticed == pytest.approx(0.5)
    assert figures.told == pytest.approx(3.0)
    assert figures.gap is not None and figures.gap.seconds == pytest.approx(2.5)
    assert figures.moments == {"made": 0.0, "healed": 7.5, "whole": 15.5}
    assert sum(each.stored for each in figures.bins) == 4
    assert sum(each.refused for each in figures.bins) == 1
    assert sum(each.unknown for each in figures.bins) == 1
    assert sum(each.read for each in figures.bins) == 2  # the deletion among them
    ((moment, *line),) = figures.lines
    assert (round(moment, 1), *line) == (0.4, "host1", "ceph-osd@1", "Main process exited", 2)


def test_the_table_of_all_faults(tmp_path: Path) -> None:
    folder = whole(tmp_path, recovery=6.5, acknowledged=5)
    report.write(folder, tmp_path / "RESULTS.md")
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    (osd,) = [line for line in lines if line.startswith("| osd")]
    cells = [cell.strip() for cell in osd.strip("|").split("|")]
    assert cells[:10] == ["osd-killed", "Ceph", "2", "5 s", "4.5 s", "6.5 s", "1", "3.0 s", "8.0 s", "9"]
    assert cells[10:] == ["0", "0", "0", "0", "3.5"]
    assert "- begun 2026-01-02T03:04:05+00:00" in lines
    assert "- seeds 1, 2" in lines
    assert any("1 of 3 recoveries late" in line for line in lines)


def test_what_is_lost_is_told_where_it_was_sent(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    seen = load(folder.readback)
    uid = next(each.uid for each in seen.listings["QIDO-RS"].instances)
    del seen.retrieved["WADO-RS"][uid]
    seen.leaks = ["CANARY in a log"]
    save(seen, folder.readback)
    told, html = written(folder)
    assert (told.kept, told.counts["lost"]) == (False, 1)
    assert [len(each.wrong) for each in told.scenarios] == [2, 0, 0]  # lost, and listed all the same
    assert [each.invariant for each in told.unplaced] == ["silent"]
    assert f"lost: {uid} by WADO-RS" in html
    found = cases(folder)
    assert {name for name, parts in found.items() if parts == ["failure"]} == {
        *("osd-killed-1", "durable", "atomic", "silent"),
    }


def test_a_patient_in_a_tiers_log_is_a_leak(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    watched = folder.watched()[1]
    watched.write_text(watched.read_text().replace("Main process exited", f"stored {CANARY}^PATIENT"))
    told, _ = written(folder)
    assert [str(each) for each in told.violations] == [f"silent: {CANARY} in {watched}"]


def test_a_campaign_that_stopped_says_so_and_why(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.write(CAMPAIGN)
    record(folder, STEPS[0], 1)
    folder.add(outcome(STEPS[0]))

    folder.write(replace(CAMPAIGN, stopped="host2 does not come back"))
    told, html = written(folder)
    assert told.verdict.startswith("Unfinished: 1 of 3 scenarios are over; so far 4 acknowledged")
    assert "It stopped: host2 does not come back" in html
    assert "Missing: osd-killed-2, host-off-1" in html
    assert "kept" not in told.verdict
    report.write(folder, tmp_path / "RESULTS.md")
    assert "**Unfinished: 1 of 3" in (tmp_path / "RESULTS.md").read_text()
    assert cases(folder)["osd-killed-2"] == ["skipped"]
    assert cases(folder)["durable"] == ["skipped"]
    assert cases(folder)["end"] == ["error"]


def test_what_nobody_recorded_is_not_called_kept(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    folder.audit.unlink()
    for path in folder.probes():
        path.unlink()
    told, html = written(folder)
    assert told.verdict.endswith("Not looked at: audited, one primary.")
    assert html.count("not looked at: nothing was recorded") == 2
    assert cases(folder)["audited"] == ["skipped"]


def test_a_scenario_that_never_recovered(tmp_path: Path) -> None:
    told, html = written(whole(tmp_path, recovery=None))
    assert [each.name for each in told.late] == ["osd-killed-1"]
    assert told.rows[0].median is None
    assert ">never<" in html


def test_what_else_was_not_as_promised_is_told(tmp_path: Path) -> None:
    said = "the virtual IP is held by host1, host2"
    folder = whole(tmp_path)
    (first, *others) = folder.outcomes()
    (tmp_path / "outcomes.jsonl").unlink()
    for each in (replace(first, broken=(said,)), *others):
        folder.add(each)
    _, html = written(folder)
    assert said in Page(html).text
    report.write(folder, tmp_path / "RESULTS.md")
    assert f"- osd-killed-1: {said}" in (tmp_path / "RESULTS.md").read_text().replace("\\", "")
    [failure] = Xml.fromstring((tmp_path / "junit.xml").read_bytes()).iter("failure")  # noqa: S314 - our own
    assert failure.attrib["message"] == said


def test_a_folder_of_before_there_were_plans_has_a_report(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    for path in (tmp_path / "campaign.json", *tmp_path.glob("*.watch.json"), *tmp_path.glob("*.probes")):
        path.unlink()
    outcomes = [replace(each, made=0.0, healed=0.0) for each in folder.outcomes()]
    (tmp_path / "outcomes.jsonl").unlink()
    for each in outcomes:
        folder.add(each)
    told, html = written(folder)
    assert (told.finished, told.kept) == (True, True)
    assert told.scenarios[0].figures.told is None
    assert "<rect" in html


def test_everything_that_others_have_said_is_escaped(tmp_path: Path) -> None:
    folder = whole(tmp_path, victim=HOSTILE, tier=HOSTILE)
    folder.write(replace(CAMPAIGN, started=HOSTILE, release=HOSTILE, stopped=HOSTILE))
    history = history_of(tmp_path, *STEPS[0])
    with history.open("a") as lines:
        for kind in ("C-STORE", "WADO-RS"):
            bad = Operation(HOSTILE, kind, HOSTILE, HOSTILE, 108.0, 108.5, Result.REFUSED, HOSTILE, HOSTILE)
            lines.write(f"{bad.line()}\n")
    watched = history.with_suffix(".watch.json")
    said = json.loads(watched.read_text())
    said["troubles"].append([120.0, [HOSTILE]])
    said["lines"] = {HOSTILE: [{"moment": 104.0, "unit": HOSTILE, "text": HOSTILE, "times": 1}]}
    watched.write_text(json.dumps(said))
    told, html = written(folder)
    assert any(HOSTILE in each.what for each in told.violations)
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= TAGS
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
        assert "src" not in attributes
    assert "alert('|')" in page.text
    report.write(folder, tmp_path / "RESULTS.md")
    markdown = (tmp_path / "RESULTS.md").read_text()
    assert "<script" not in markdown.replace("\\<script", "")
    rows = [line.replace("\\|", "") for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert len({row.count("|") for row in rows}) == 1
    assert "osd-killed-1" in cases(folder)
    json.loads((tmp_path / "report.json").read_text())


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    _, html = written(whole(tmp_path))
    assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize("broken, code", [(None, 0), ("late", 1), ("unfinished", 3), ("file", 2)])
def test_the_verdict_is_the_exit_code(tmp_path: Path, broken: str | None, code: int) -> None:
    folder = whole(tmp_path, recovery=9.0) if broken == "late" else whole(tmp_path)
    if broken == "unfinished":
        folder.readback.unlink()
    if broken == "file":
        (tmp_path / "outcomes.jsonl").write_text('{"fault": 1}\n')
    done = CliRunner().invoke(app, ["report", str(tmp_path), "--results", str(tmp_path / "R.md")])
    assert done.exit_code == code, done.output
    assert (tmp_path / "R.md").exists() == (code != 2)
