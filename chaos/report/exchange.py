"""The report for programs: JSON, and JUnit's XML as continuous integration reads it."""

import json
import re
from dataclasses import asdict
from xml.etree import ElementTree as Xml

from chaos.report.gathered import Report, Scenario

SHOWN = 50  # violations in one message
# What no XML 1.0 document may hold (its section 2.2), whatever servers have said
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_json(report: Report) -> str:
    """Everything that is in the report."""
    told = {
        "verdict": report.verdict,
        "finished": report.finished,
        "kept": report.kept,
        "acknowledged": report.acknowledged,
        "counts": report.counts,
        "checks": report.checks,
        "faults": [{**asdict(row), "median": row.median, "worst": row.worst} for row in report.rows],
        **asdict(report),
    }
    return json.dumps(told, indent=1)


def as_junit(report: Report) -> bytes:
    """A test case for each scenario and each check."""
    suite = Xml.Element("testsuite", name="chaos")
    for scenario in report.scenarios:
        case = _case(suite, "scenario", scenario.name, scenario.outcome.recovery or 0.0)
        if not scenario.kept:
            _told(case, "failure", _why(scenario), [str(each) for each in scenario.wrong])
    for fault, seed in report.missing:
        case = _case(suite, "scenario", f"{fault}-{seed}", 0.0)
        _told(case, "skipped", "the campaign has not come to it", [])
    for name, count in report.checks.items():
        case = _case(suite, "invariant", name, 0.0)
        found = [each.what for each in report.violations if each.invariant == name]
        if not report.judged:
            _told(case, "skipped", "nothing was read back yet", [])
        elif name in report.unseen:
            _told(case, "skipped", "nothing was recorded that it could look at", [])
        elif count:
            _told(case, "failure", f"{count} violations", found)
    if report.campaign is not None and report.campaign.stopped:
        _told(_case(suite, "campaign", "end", 0.0), "error", report.campaign.stopped, [])
    suite.set("tests", str(len(suite)))
    for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"*/{tag}"))))
    Xml.indent(suite)
    return bytes(Xml.tostring(suite, encoding="utf-8", xml_declaration=True))


def _case(suite: Xml.Element, group: str, name: str, seconds: float) -> Xml.Element:
    given = {"classname": f"chaos.{group}", "name": _clean(name), "time": f"{seconds:.3f}"}
    return Xml.SubElement(suite, "testcase", given)


def _told(case: Xml.Element, tag: str, message: str, lines: list[str]) -> None:
    Xml.SubElement(case, tag, message=_clean(message)).text = _clean("\n".join(lines[:SHOWN]))


def _why(scenario: Scenario) -> str:
    outcome = scenario.outcome
    told = [f"{len(scenario.wrong)} violations"] if scenario.wrong else []
    if outcome.recovery is None:
        told.append("no recovery")
    elif outcome.recovery > outcome.target:
        told.append(f"recovery {outcome.recovery:.1f} s, target {outcome.target:g} s")
    return "; ".join([*told, *outcome.broken])


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
