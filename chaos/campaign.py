"""Several scenarios one after the other on one cluster, and the judgement of all that clients were told.

A campaign is a folder. What is planned is in campaign.json, what is done in outcomes.jsonl, so one that was
interrupted goes on where it stopped, on the same cluster. `judging.campaign` derives the verdict from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from chaos import judging, scenario
from chaos.deployed import ROOT, Deployed
from chaos.faults import Fault
from chaos.folder import Campaign, Folder, identity
from chaos.lab.shell import LabError, attempt
from chaos.model import Violation
from chaos.probing.probes import probing
from chaos.scenario import Outcome
from chaos.watch import watching

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

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not self.violations and not self.late


def run(
    cluster: Deployed,
    plan: Sequence[tuple[Fault, int]],
    folder: Path,
    tell: Callable[[Outcome], None] = lambda _outcome: None,
) -> Result:
    """Run the scenarios of `plan` (faults with seeds) that the folder has no outcome of; everything recorded
    is in `folder`. LabError, after which another run goes on."""
    kept = Folder(folder)
    campaign = _begun(kept, cluster).extended([(fault.name, seed) for fault, seed in plan], _gap(plan))
    kept.write(campaign)
    ahead = kept.lacks([(fault.name, seed) for fault, seed in plan])
    try:
        mend(cluster)
        for fault, seed in plan:
            if (fault.name, seed) not in ahead:
                continue
            kept.forget_what_was_read()
            outcome = _watched(cluster, fault, seed, folder)
            kept.add(outcome)
            tell(outcome)
        if not kept.finished:
            _read_all(cluster, kept)
    except BaseException as error:
        kept.write(replace(campaign, stopped=str(error) or type(error).__name__))
        raise
    return Result(kept.outcomes(), judging.campaign(kept))


def _watched(cluster: Deployed, fault: Fault, seed: int, folder: Path) -> Outcome:
    """A scenario; beside its history lie what was watched (.watch.json) and the write probes (.probes)."""
    log = scenario.new_history(folder, fault.name, seed)
    with (
        watching(cluster, log.with_suffix(".watch.json")) as watch,
        probing(cluster.on("postgres"), log.with_suffix(".probes")),
    ):
        outcome = scenario.run(cluster, fault, seed, folder)
        watch.begin = outcome.made
    return outcome


def _begun(kept: Folder, cluster: Deployed) -> Campaign:
    """The campaign of the folder; LabError if it is another cluster's."""
    campaign = kept.campaign()
    if campaign is None:
        return Campaign(
            datetime.now(UTC).isoformat(timespec="seconds"), release(), identity(cluster), [], 0.0
        )
    if campaign.cluster != identity(cluster):
        raise LabError(f"{kept.path} is of another cluster, which alone can say what became of it")
    return campaign


def _gap(plan: Sequence[tuple[Fault, int]]) -> float:
    return max(fault.silence_seconds for fault, _ in plan)


def _read_all(cluster: Deployed, kept: Folder) -> None:
    """All that the archive says in the end; the read-back itself leaves traces in the trail, so that is last
    but for the file that says that all is there."""
    campaign = kept.campaign()
    began = datetime.fromisoformat(campaign.started).timestamp() if campaign else 0.0
    cluster.export_audit(began, kept.audit)
    cluster.check(kept.findings)
    cluster.read_back(kept.histories(), kept.readback, READ_BACK_SECONDS)


def mend(cluster: Deployed) -> None:
    """Undo what a scenario that was killed has left: hosts that are off or frozen, cut cables."""
    cluster.lab.network.heal()
    for host in cluster.lab.hosts.values():
        if host.powered:
            host.thaw()
        else:
            host.power_on()
            host.wait_ready()


def release() -> str:
    """The version of Stele, and of its sources where they are known."""
    done = attempt(("git", "-C", str(ROOT), "describe", "--always", "--dirty"), seconds=10)
    sources = done.stdout.decode().strip() if done.returncode == 0 else ""
    return f"{version('stele')} ({sources})" if sources else version("stele")
