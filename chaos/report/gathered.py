"""A campaign's folder as plain values."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from chaos import history, judging, watch
from chaos.checks import CHECKS
from chaos.folder import Campaign, Folder
from chaos.history import Operation
from chaos.model import Violation
from chaos.plan import Step
from chaos.report.figures import Figures, figures
from chaos.scenario import Outcome, history_of
from chaos.watch import Watched

# What a violation is called in a table: by its invariant and how it begins
CALLED = (
    ("lost", "durable", "lost"),
    ("corrupt", "durable", "corrupt"),
    ("stale", "fresh", ""),
    ("duplicate", "once", ""),
)
_UID = re.compile(r"\d+(?:\.\d+)+")


@dataclass(slots=True)
class Scenario:
    """One that is over. `wrong`: violations about what it sent."""

    outcome: Outcome
    figures: Figures
    wrong: list[Violation] = field(default_factory=list)

    @property
    def name(self) -> str:
        """FAULT-SEED."""
        return f"{self.outcome.fault}-{self.outcome.seed}"

    @property
    def kept(self) -> bool:
        """Whether it was in time and nothing is wrong."""
        return self.outcome.recovered and not self.wrong


@dataclass(slots=True)
class Row:
    """All seeds of a fault. `counts`: by CALLED."""

    fault: str
    tier: str
    seeds: list[int]
    target: float
    recovery: list[float]  # without those that never recovered
    told: list[float]
    whole: list[float]
    acknowledged: int
    load: float
    late: int
    counts: dict[str, int]

    @property
    def median(self) -> float | None:
        """Of the recoveries; None if one seed did not recover at all."""
        return median(self.recovery) if len(self.recovery) == len(self.seeds) else None

    @property
    def worst(self) -> float | None:
        """Of the recoveries; None if one seed did not recover at all."""
        return max(self.recovery) if len(self.recovery) == len(self.seeds) else None


@dataclass(slots=True)
class Report:
    """A campaign. `missing`: planned, not over. `judged`: whether everything was read back and held against
    what clients were told. `unplaced`: violations that are about no scenario's instances. `unseen`: checks of
    which nothing was recorded that they could look at."""

    campaign: Campaign | None
    scenarios: list[Scenario]
    missing: list[Step]
    judged: bool
    violations: list[Violation]
    unplaced: list[Violation]
    unseen: list[str]

    @property
    def finished(self) -> bool:
        """Whether nothing that was planned is missing, the judgement included."""
        return self.judged and not self.missing

    @property
    def late(self) -> list[Scenario]:
        """Those that took longer than promised."""
        return [each for each in self.scenarios if not each.outcome.recovered]

    @property
    def kept(self) -> bool:
        """Whether, as far as it went, every promise was kept."""
        return not self.violations and not self.late

    @property
    def acknowledged(self) -> int:
        """Instances, of all scenarios."""
        return sum(each.outcome.acknowledged for each in self.scenarios)

    @property
    def counts(self) -> dict[str, int]:
        """Of the violations in a table's terms."""
        return counts_of(self.violations)

    @property
    def checks(self) -> dict[str, int]:
        """Violations of every check, those that hold included."""
        found = Counter(each.invariant for each in self.violations)
        return {name: found[name] for name in CHECKS}

    @property
    def verdict(self) -> str:
        """In one sentence or two."""
        done = len(self.scenarios)
        told = f"{self.acknowledged} acknowledged, {len(self.violations)} violations"
        told += f", {len(self.late)} of {done} recoveries late"
        if self.missing:
            return f"Unfinished: {done} of {done + len(self.missing)} scenarios are over; so far {told}."
        if not self.judged:
            return f"Unfinished: nothing was read back yet; {len(self.late)} of {done} recoveries late."
        unseen = f" Not looked at: {', '.join(self.unseen)}." if self.unseen else ""
        return f"{'Every promise was kept' if self.kept else 'Promises were broken'}: {told}.{unseen}"

    @property
    def rows(self) -> list[Row]:
        """One for each fault, in the order of the campaign."""
        by_fault: dict[str, list[Scenario]] = {}
        for each in self.scenarios:
            by_fault.setdefault(each.outcome.fault, []).append(each)
        return [_row(scenarios) for scenarios in by_fault.values()]


def counts_of(violations: Iterable[Violation]) -> dict[str, int]:
    """Different instances (or sentences) by what is wrong with them: CALLED, or else "other"."""
    found: dict[str, set[str]] = {name: set() for name in (*(name for name, _, _ in CALLED), "other")}
    for each in violations:
        uid = _UID.search(each.what)
        found[called(each)].add(uid[0] if uid else each.what)
    return {name: len(what) for name, what in found.items()}


def called(violation: Violation) -> str:
    """What it is called in a table."""
    for name, invariant, beginning in CALLED:
        if violation.invariant == invariant and violation.what.startswith(beginning):
            return name
    return "other"


def gathered(folder: Folder) -> Report:
    """Read it. OSError, ValueError, TypeError, KeyError if a file is not what it should be."""
    scenarios: list[Scenario] = []
    senders: dict[str, Scenario] = {}
    for outcome in folder.outcomes():
        operations, watched = _recorded(history_of(folder.path, outcome.fault, outcome.seed))
        scenario = Scenario(outcome, figures(operations, watched, _moments(outcome)))
        scenarios.append(scenario)
        senders |= {each.uid: scenario for each in operations}
    violations = judging.campaign(folder)
    unplaced = []
    for each in violations:
        owners = {id(senders[uid]): senders[uid] for uid in _UID.findall(each.what) if uid in senders}
        for owner in owners.values():
            owner.wrong.append(each)
        if not owners:
            unplaced.append(each)
    judged = folder.readback.exists()
    unseen = _unseen(folder, scenarios) if judged else []
    return Report(folder.campaign(), scenarios, folder.missing(), judged, violations, unplaced, unseen)


def _unseen(folder: Folder, scenarios: list[Scenario]) -> list[str]:
    evidence = {
        "reconciled": folder.findings.exists(),
        "deleted": any(each.figures.deletions for each in scenarios),
        "audited": folder.audit.exists(),
        "one primary": any(path.stat().st_size for path in folder.probes()),
    }
    return [name for name, there in evidence.items() if not there]


def _moments(outcome: Outcome) -> dict[str, float]:
    if not outcome.made:  # of before it was noted
        return {}
    return {"made": outcome.made, "healed": outcome.healed, "whole": outcome.healed + outcome.whole}


def _recorded(path: Path) -> tuple[list[Operation], Watched]:
    """What there is of a scenario: its history or what was watched may be missing."""
    watched = path.with_suffix(".watch.json")
    operations = history.read([path]).operations if path.exists() else []
    return operations, watch.load(watched) if watched.exists() else Watched()


def _row(scenarios: list[Scenario]) -> Row:
    outcomes = [each.outcome for each in scenarios]
    return Row(
        fault=outcomes[0].fault,
        tier=outcomes[0].tier,
        seeds=[each.seed for each in outcomes],
        target=outcomes[0].target,
        recovery=[each.recovery for each in outcomes if each.recovery is not None],
        told=[each.figures.told for each in scenarios if each.figures.told is not None],
        whole=[each.whole for each in outcomes],
        acknowledged=sum(each.acknowledged for each in outcomes),
        load=median(each.load for each in outcomes),
        late=sum(not each.recovered for each in outcomes),
        counts=counts_of(violation for each in scenarios for violation in each.wrong),
    )
