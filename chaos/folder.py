"""A campaign's folder: what was planned, what is done, and everything that was recorded.

campaign.json            when it began, which release, on which cluster, the plan, why it stopped
outcomes.jsonl           how each scenario went, a line each
FAULT-SEED.jsonl         a scenario's history; FAULT-SEED.2.jsonl if the first one was interrupted
  .jsonl.pages .log      error pages that clients got; what they said themselves
  .watch.json .probes    troubles, load and logs; write probes
audit.jsonl readback.json findings.jsonl    what the archive said in the end
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from chaos.deployed import Deployed
from chaos.plan import Step
from chaos.scenario import Outcome


@dataclass(frozen=True, slots=True)
class Campaign:
    """`started`: ISO 8601, UTC. `cluster`: tells one deployment from another. `gap_seconds`: the longest time
    without an acknowledgement that a planned fault excuses. `stopped`: why it did before its end, or ""."""

    started: str
    release: str
    cluster: str
    plan: list[Step]
    gap_seconds: float
    stopped: str = ""

    def extended(self, plan: list[Step], gap_seconds: float) -> "Campaign":
        """With further steps; those it has already are no others."""
        more = [step for step in plan if step not in self.plan]
        longest = max(gap_seconds, self.gap_seconds)
        return replace(self, plan=[*self.plan, *more], gap_seconds=longest, stopped="")


_CAMPAIGN = TypeAdapter(Campaign)


def identity(cluster: Deployed) -> str:
    """Tells one deployment from another: its clients' token is drawn anew for each."""
    return hashlib.sha256(cluster.entrance.token_file.read_bytes()).hexdigest()[:16]


class Folder:
    """Reads and writes one. ValueError if a file is not what it should be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readback = path / "readback.json"
        self.audit = path / "audit.jsonl"
        self.findings = path / "findings.jsonl"

    def campaign(self) -> Campaign | None:
        """What was planned; None before it was."""
        file = self.path / "campaign.json"
        return _CAMPAIGN.validate_json(file.read_bytes()) if file.exists() else None

    def write(self, campaign: Campaign) -> None:
        """Note what is planned, at once or not at all."""
        unfinished = self.path / "campaign.new"
        unfinished.write_bytes(_CAMPAIGN.dump_json(campaign, indent=2))
        unfinished.rename(self.path / "campaign.json")

    def outcomes(self) -> list[Outcome]:
        """How the scenarios went that are over. A line that was cut off is none."""
        file = self.path / "outcomes.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        try:
            return [Outcome.from_line(line) for line in lines]
        except TypeError as error:
            raise ValueError(f"{file}: {error}") from None

    def add(self, outcome: Outcome) -> None:
        """Note that a scenario is over."""
        with (self.path / "outcomes.jsonl").open("a") as lines:
            lines.write(f"{outcome.line()}\n")

    def histories(self) -> list[Path]:
        """Of all scenarios, interrupted ones included."""
        return sorted(self.path.glob("*-*.jsonl"))

    def watched(self) -> list[Path]:
        """What was watched of all scenarios, lines of the tiers' logs among it."""
        return sorted(self.path.glob("*.watch.json"))

    def probes(self) -> list[Path]:
        """What the write probes of all scenarios were told."""
        return sorted(self.path.glob("*.probes"))

    def missing(self) -> list[Step]:
        """Planned, and not over."""
        campaign = self.campaign()
        return [] if campaign is None else self.lacks(campaign.plan)

    def lacks(self, steps: list[Step]) -> list[Step]:
        """Those of some steps that are not over."""
        done = {(each.fault, each.seed) for each in self.outcomes()}
        return [step for step in steps if step not in done]

    @property
    def finished(self) -> bool:
        """Whether all that was planned is over and was read back."""
        return self.readback.exists() and not self.missing()

    def forget_what_was_read(self) -> None:
        """Before another scenario: the archive will say something else."""
        for file in (self.audit, self.readback, self.findings):
            file.unlink(missing_ok=True)
