"""What the programs on the clients' side left on disk, put together for the checks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos import corpus, history
from chaos.checks import findings_in, leaks_in, violations
from chaos.faults.fault import severs
from chaos.folder import Folder
from chaos.model import GAP_SECONDS, Evidence, Limits, Violation
from chaos.probing.probes import read
from chaos.readback.whole import load
from chaos.scenario import Outcome
from chaos.trail import audit_in


def evidence(
    histories: Sequence[Path],
    readback: Path,
    limits: Limits,
    *,
    texts: Iterable[Path] = (),
    findings: Path | None = None,
    audit: Path | None = None,
    probes: Iterable[Path] = (),
) -> Evidence:
    """All that the histories and what was read back say, error pages beside them included.

    `texts` may name no patient; `findings`: what `stele check --json` printed; `audit`: an export of the
    audit trail (`chaos.trail`); `probes`: of `chaos.probing`. OSError, ValueError, TypeError or KeyError if a
    file is not what it should be.
    """
    recorded = history.read(histories)
    seen = load(readback)
    pages = [path.with_name(f"{path.name}.pages") for path in (*histories, readback)]
    places = [*texts, *(path for path in pages if path.exists())]
    seen.leaks += leaks_in({str(path): path.read_text(errors="replace") for path in places})
    if findings is not None:
        seen.findings, seen.orphans = findings_in(findings.read_text())
    if audit is not None:
        seen.audit = audit_in(audit.read_text())
    seen.probes = [probe for path in probes for probe in read(path)]
    sent = [each.row for each in corpus.all_instances(recorded.corpora)]
    return Evidence(recorded.runs, sent, seen, limits)


def campaign(folder: Folder) -> list[Violation]:
    """Which promises a campaign has seen broken, as far as it was read back; [] if it was not at all."""
    if not folder.readback.exists():
        return []
    planned = folder.campaign()
    outcomes = folder.outcomes()
    targets = [each.target for each in outcomes]
    limits = Limits(
        gap_seconds=planned.gap_seconds if planned else max(targets, default=GAP_SECONDS),
        severed=severed(outcomes),
    )
    given = evidence(
        folder.histories(),
        folder.readback,
        limits,
        texts=folder.watched(),
        findings=folder.findings if folder.findings.exists() else None,
        audit=folder.audit if folder.audit.exists() else None,
        probes=folder.probes(),
    )
    return violations(given)


def severed(outcomes: Iterable[Outcome]) -> tuple[tuple[float, float], ...]:
    """From when to when scenarios may have ended connections without a word."""
    return tuple((each.made, each.healed + each.whole) for each in outcomes if severs(each.tier))
