"""What the programs on the clients' side left on disk, put together for the checks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos import corpus, history
from chaos.checks import findings_in, leaks_in
from chaos.model import Evidence, Limits
from chaos.readback.whole import load


def evidence(
    histories: Sequence[Path],
    readback: Path,
    limits: Limits,
    *,
    texts: Iterable[Path] = (),
    findings: Path | None = None,
) -> Evidence:
    """All that the histories and what was read back say, error pages beside them included.

    `texts` may name no patient; `findings`: what `stele check --json` printed. OSError, ValueError, TypeError
    or KeyError if a file is not what it should be.
    """
    recorded = history.read(histories)
    seen = load(readback)
    pages = [path.with_name(f"{path.name}.pages") for path in (*histories, readback)]
    places = [*texts, *(path for path in pages if path.exists())]
    seen.leaks += leaks_in({str(path): path.read_text(errors="replace") for path in places})
    if findings is not None:
        seen.findings, seen.orphans = findings_in(findings.read_text())
    sent = [each.row for each in corpus.all_instances(recorded.corpora)]
    return Evidence(recorded.runs, sent, seen, limits)
