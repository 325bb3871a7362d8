"""Several scenarios one after the other on one cluster, and the judgement of all that clients were told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos import corpus, history, scenario
from chaos.checks import CHECKS, leaks_in
from chaos.deployed import Deployed
from chaos.faults import Fault
from chaos.model import Evidence, Limits, Violation
from chaos.readback.whole import load
from chaos.scenario import Outcome

READ_BACK_SECONDS = 900.0


@dataclass(slots=True)
class Result:
    """What came of it: how long each recovery took, and which promises were broken."""

    outcomes: list[Outcome] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    acknowledged: int = 0

    @property
    def late(self) -> list[Outcome]:
        """Scenarios that took longer than promised."""
        return [each for each in self.outcomes if not each.recovered]


def run(
    cluster: Deployed,
    plan: Sequence[tuple[Fault, int]],
    folder: Path,
    tell: Callable[[Outcome], None] = lambda _outcome: None,
) -> Result:
    """Run the scenarios of `plan` (faults with seeds); everything recorded is in `folder`. LabError."""
    result = Result()
    with (folder / "outcomes.jsonl").open("a") as lines:
        for fault, seed in plan:
            outcome = scenario.run(cluster, fault, seed, folder)
            result.outcomes.append(outcome)
            lines.write(f"{outcome.line()}\n")
            lines.flush()
            tell(outcome)
    result.acknowledged = sum(each.acknowledged for each in result.outcomes)
    result.violations = judged(cluster, sorted(folder.glob("*-*.jsonl")), folder / "readback.json", plan)
    return result


def judged(
    cluster: Deployed, histories: Sequence[Path], readback: Path, plan: Sequence[tuple[Fault, int]]
) -> list[Violation]:
    """Read everything back that the histories tell of, and hold it against them."""
    cluster.read_back(list(histories), readback, READ_BACK_SECONDS)
    recorded = history.read(histories)
    seen = load(readback)
    pages = [path.with_name(f"{path.name}.pages") for path in (*histories, readback)]
    seen.leaks += leaks_in({str(path): path.read_text(errors="replace") for path in pages if path.exists()})
    sent = [each.row for each in corpus.all_instances(recorded.corpora)]
    longest = max(fault.recovery_seconds for fault, _ in plan)
    evidence = Evidence(recorded.runs, sent, seen, Limits(gap_seconds=longest))
    return [violation for check in CHECKS.values() for violation in check(evidence)]
