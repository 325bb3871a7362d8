"""report.html and RESULTS.md."""

import re
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from chaos.report.charts import LEFT, WIDTH, chart
from chaos.report.gathered import CALLED, Report, Scenario

SHOWN = 40  # violations of one scenario, or of all together
_TEMPLATES = FileSystemLoader(Path(__file__).parent)
# Line by line, so that the templates can be laid out
_OPTIONS: dict[str, Any] = {
    **{"loader": _TEMPLATES, "undefined": StrictUndefined},
    **{"trim_blocks": True, "lstrip_blocks": True},
}


def html(report: Report) -> str:
    """The page: nothing of it comes from elsewhere, and nothing in it runs."""
    environment = Environment(autoescape=True, **_OPTIONS)
    environment.filters |= {"seconds": seconds}
    return environment.get_template("report.html.j2").render(
        report=report,
        ordered=sorted(report.scenarios, key=_urgency),
        chart=chart,
        called=[name for name, _, _ in CALLED],
        shown=SHOWN,
        width=WIDTH,
        left=LEFT,
    )


def results(report: Report) -> str:
    """The table of all faults, in Markdown."""
    environment = Environment(autoescape=False, **_OPTIONS)  # noqa: S701 - Markdown, by `plain`
    environment.filters |= {"seconds": seconds, "plain": plain, "middle": _middle}
    text = environment.get_template("results.md.j2").render(
        report=report,
        called=[name for name, _, _ in CALLED],
        seeds=sorted({each.outcome.seed for each in report.scenarios}),
        cores=sorted({each.outcome.cores for each in report.scenarios}),
    )
    return text.rstrip() + "\n"


def seconds(value: float | None) -> str:
    """With as many digits as matter; "–" for none."""
    if value is None:
        return "–"
    return f"{value:.1f} s" if abs(value) < 100 else f"{value:.0f} s"


def plain(text: str) -> str:
    """As a cell of a Markdown table: what would be markup there is taken literally."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", " ".join(text.split()))


def _middle(values: Iterable[float]) -> float | None:
    given = list(values)
    return median(given) if given else None


def _urgency(scenario: Scenario) -> tuple[bool, bool, float]:
    """What is broken comes first, then what is late, then what was nearest to it."""
    outcome = scenario.outcome
    share = float("inf") if outcome.recovery is None else outcome.recovery / outcome.target
    return not scenario.wrong, outcome.recovered, -share
