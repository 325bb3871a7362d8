"""A campaign goes on where it stopped, on the same cluster, and leaves none of its faults behind."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from chaos import campaign, scenario, watch
from chaos.corpus import Instance
from chaos.deployed import Deployed
from chaos.faults import Fault, Injected
from chaos.folder import Folder
from chaos.lab.shell import LabError
from chaos.scenario import Outcome, history_of, new_history
from tests.unit.chaos.campaigns import finish, outcome, record

Steps = list[tuple[str, int]]
PLAN = [(name, seed) for seed in (1, 2) for name in ("a-fault", "b-fault")]


def fault(name: str, seconds: float = 60.0) -> Fault:
    def inject(_cluster: Deployed, _generator: random.Random) -> Injected:
        raise AssertionError("nothing is made here")

    return Fault(name, "tier", "what", seconds, inject)


FAULTS = [(fault(name), seed) for name, seed in PLAN]


@dataclass
class Host:
    """A host that may be off or frozen."""

    name: str
    powered: bool = True
    done: list[str] = field(default_factory=list)

    def power_on(self) -> None:
        self.done.append("on")

    def wait_ready(self) -> None:
        self.done.append("ready")

    def command(self, *_command: str) -> tuple[str, ...]:
        raise LabError("nothing runs here")

    def run(self, *_command: str, seconds: float) -> bytes:
        raise LabError(f"no journal within {seconds} s")

    def thaw(self) -> None:
        self.done.append("thawed")


class Cluster:
    """What a campaign asks of a cluster; it has everything that was sent to it."""

    def __init__(self, folder: Path) -> None:
        self.lab = self
        self.network = self
        self.hosts = {"host1": Host("host1"), "host2": Host("host2", powered=False)}
        self.entrance = self
        self.token_file = folder.parent / "token"
        self.token_file.write_text("secret")
        self.kept = Folder(folder)
        self.asked: list[str] = []
        self.there: list[Instance] = []

    def troubles(self) -> list[str]:
        return []

    def on(self, _tier: str) -> list[Host]:
        return list(self.hosts.values())

    def heal(self) -> None:
        self.asked.append("healed")

    def export_audit(self, _since: float, out: Path) -> None:
        self.asked.append(out.name)

    def check(self, out: Path) -> None:
        self.asked.append(out.name)

    def read_back(self, histories: list[Path], out: Path, _seconds: float) -> None:
        self.asked.append(f"{len(histories)} into {out.name}")
        finish(self.kept, self.there)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "campaign"
    path.mkdir()
    return path


@pytest.fixture
def cluster(folder: Path) -> Cluster:
    return Cluster(folder)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> Steps:
    """Scenarios that run in no time, but for those that are put in here: they leave a history only."""
    stops: Steps = []

    def run(_cluster: Deployed, fault: Fault, seed: int, folder: Path) -> Outcome:
        step = fault.name, seed
        sent = record(Folder(folder), step, PLAN.index(step) + 1)
        if step in stops:
            raise LabError("host2 does not come back")
        cluster.there += sent
        return outcome(step, target=60)

    monkeypatch.setattr(scenario, "run", run)
    return stops


def go(cluster: Cluster, plan: list[tuple[Fault, int]] = FAULTS) -> campaign.Result:
    return campaign.run(cast(Deployed, cluster), plan, cluster.kept.path)


def test_it_goes_on_with_what_is_missing(folder: Path, cluster: Cluster, fails: Steps) -> None:
    fails.append(PLAN[2])
    with pytest.raises(LabError, match="host2"):
        go(cluster)
    kept = cluster.kept
    assert [(each.fault, each.seed) for each in kept.outcomes()] == PLAN[:2]
    assert kept.missing() == PLAN[2:]
    assert not kept.finished
    begun = kept.campaign()
    assert begun is not None and begun.stopped == "host2 does not come back"

    fails.clear()
    result = go(cluster)
    assert [(each.fault, each.seed) for each in result.outcomes] == PLAN
    assert kept.finished
    again = kept.campaign()
    assert again is not None and (again.stopped, again.started) == ("", begun.started)
    # The interrupted scenario's history is kept, and judged with all others
    assert history_of(folder, *PLAN[2]).name == "a-fault-2.2.jsonl"
    assert new_history(folder, *PLAN[2]).name == "a-fault-2.3.jsonl"
    assert "5 into readback.json" in cluster.asked


def test_what_was_watched_lies_beside_the_history(folder: Path, cluster: Cluster, fails: Steps) -> None:
    assert not fails
    go(cluster, FAULTS[:1])
    seen = watch.load(folder / "a-fault-1.watch.json")
    assert [said for _, said in seen.troubles] == [[]]
    assert [line.text for line in seen.lines["host1"]] == ["no journal within 60.0 s"]
    assert (folder / "a-fault-1.probes").exists()


def test_what_is_over_is_not_run_again(cluster: Cluster, fails: Steps) -> None:
    go(cluster, FAULTS[:2])
    fails += PLAN[:2]
    cluster.asked.clear()
    assert len(go(cluster, FAULTS[:2]).outcomes) == 2
    assert cluster.asked == ["healed"]


def test_further_scenarios_are_judged_with_the_former(cluster: Cluster, fails: Steps) -> None:
    go(cluster, FAULTS[:1])
    fails.append(PLAN[1])
    with pytest.raises(LabError):
        go(cluster, FAULTS[:2])
    assert not cluster.kept.readback.exists()  # what was read before says nothing any more
    fails.clear()
    go(cluster, FAULTS[:2])
    assert cluster.kept.finished


def test_the_trail_is_taken_before_reading_back_adds_to_it(cluster: Cluster, fails: Steps) -> None:
    assert not fails
    go(cluster, FAULTS[:1])
    assert cluster.asked == ["healed", "audit.jsonl", "findings.jsonl", "1 into readback.json"]


def test_another_cluster_cannot_go_on(cluster: Cluster, fails: Steps) -> None:
    assert not fails
    go(cluster, FAULTS[:1])
    cluster.token_file.write_text("another")
    with pytest.raises(LabError, match="another cluster"):
        go(cluster)


def test_what_a_killed_campaign_has_left_is_mended(cluster: Cluster, fails: Steps) -> None:
    assert not fails
    go(cluster, FAULTS[:1])
    assert cluster.hosts["host1"].done == ["thawed"]
    assert cluster.hosts["host2"].done == ["on", "ready"]
    assert cluster.asked[0] == "healed"


def test_the_longest_recovery_of_the_plan_is_no_silence(cluster: Cluster, fails: Steps) -> None:
    assert not fails
    assert go(cluster, [(fault("a-fault", 3.0), 1)]).violations != []  # 3.5 s without an acknowledgement
    assert go(cluster, [(fault("a-fault", 3.0), 1), (fault("b-fault", 4.0), 1)]).violations == []


def test_a_line_that_was_cut_off_is_no_outcome(cluster: Cluster, fails: Steps) -> None:
    assert not fails
    go(cluster, FAULTS[:2])
    lines = cluster.kept.path / "outcomes.jsonl"
    lines.write_text(lines.read_text()[:-20])
    assert cluster.kept.missing() == PLAN[1:2]
