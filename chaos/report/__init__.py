"""What came of a campaign, for people and for programs, out of its folder alone.

    gathered.py   the folder as plain values: each scenario's figures, every violation, the verdict
    figures.py    a scenario's figures out of its history and what was watched; pure
    charts.py     where things are in a drawing; pure
    pages.py      report.html and RESULTS.md, by the templates beside it
    exchange.py   report.json, junit.xml

Nothing is typed into any of it, and all of it is escaped: histories hold what servers have said.
"""

from pathlib import Path

from chaos.folder import Folder
from chaos.report import exchange, pages
from chaos.report.gathered import Report, gathered

PAGE = "report.html"


def write(folder: Folder, results: Path | None = None) -> Report:
    """Write everything into the folder, and the table of all faults to `results`. OSError, ValueError,
    TypeError, KeyError if a file of the folder is not what it should be."""
    report = gathered(folder)
    (folder.path / PAGE).write_text(pages.html(report))
    (folder.path / "report.json").write_text(exchange.as_json(report))
    (folder.path / "junit.xml").write_bytes(exchange.as_junit(report))
    if results is not None:
        results.write_text(pages.results(report))
    return report
