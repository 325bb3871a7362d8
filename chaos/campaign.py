"""Several scenarios one after the other on one cluster, and the judgement of all that clients were told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos import scenario
from chaos.checks import violations
from chaos.deployed import Deployed
from chaos.faults import Fault
from chaos.judging import evidence
from chaos.model import Limits, Violation
from chaos.scenario import Outcome

READ_BACK_SECONDS = 900.0


@dataclass(slots=True)
class Result:
    """What came of it: how long each recovery took, and which promises were broken."""

    outcomes: list[Outcome] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """Stores that were acknowledged, of all scenarios."""
        return sum(each.acknowledged for each in self.outcomes)

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
    result.violations = judged(cluster, sorted(folder.glob("*-*.jsonl")), folder / "readback.json", plan)
    return result


def judged(
    cluster: Deployed, histories: Sequence[Path], readback: Path, plan: Sequence[tuple[Fault, int]]
) -> list[Violation]:
    """Read everything back that the histories tell of, and hold it against them."""
    cluster.read_back(list(histories), readback, READ_BACK_SECONDS)
    longest = max(fault.silence_seconds for fault, _ in plan)
    return violations(evidence(histories, readback, Limits(gap_seconds=longest)))
