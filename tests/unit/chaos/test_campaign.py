"""A campaign: one scenario after the other, and a judgement that knows all of them; against clients alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import campaign, history, scenario
from chaos.lab.shell import LabError
from chaos.scenario import Outcome
from tests.unit.chaos.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(scenario, "AFTER_SECONDS", 0.0)
    made = Cluster(tmp_path)
    yield made
    assert all(each.poll() is not None for each in made.clients)


def broken(result: campaign.Result) -> list[str]:
    """Which promises were, but for the audit trail: these clients send to nobody who could keep one."""
    return [each.invariant for each in result.violations if each.invariant != "audited"]


def test_the_judgement_takes_the_histories_of_all_scenarios(cluster: Cluster) -> None:
    told: list[Outcome] = []
    plan = [(cluster.fault("one"), 1), (cluster.fault("two"), 2)]
    result = campaign.run(cluster, plan, cluster.folder, told.append)
    assert [each.fault for each in result.outcomes] == ["one", "two"] == [each.fault for each in told]
    assert broken(result) == []
    assert result.late == []
    assert len(cluster.read) == len(set(cluster.read)) == 2
    recorded = history.read(cluster.read).operations
    assert result.acknowledged == sum(each.acknowledged for each in recorded) > 2 * scenario.BEFORE
    assert cluster.order[-1] == "read back"


def test_what_an_earlier_scenario_lost_is_found_at_the_end(cluster: Cluster) -> None:
    first = cluster.fault("one")
    scenario.run(cluster, first, 1, cluster.folder)
    [log] = cluster.folder.glob("*.jsonl")
    lost = next(each.uid for each in history.read([log]).operations if each.acknowledged)
    cluster.lost = {lost}
    result = campaign.run(cluster, [(cluster.fault("two"), 2)], cluster.folder)
    assert [str(each) for each in result.violations if each.invariant == "durable"] == [
        f"durable: lost: {lost} by WADO-RS"
    ]


def test_outcomes_are_on_disk_as_they_come(cluster: Cluster) -> None:
    def break_down(outcome: Outcome) -> None:
        raise LabError(f"after {outcome.fault}")

    with pytest.raises(LabError, match="after one"):
        campaign.run(
            cluster, [(cluster.fault("one"), 1), (cluster.fault("two"), 1)], cluster.folder, break_down
        )
    [line] = (cluster.folder / "outcomes.jsonl").read_text().splitlines()
    assert json.loads(line)["fault"] == "one"


def test_a_late_recovery_does_not_end_the_campaign(cluster: Cluster) -> None:
    late = cluster.fault("late", within=0.05, lasts=0.5)
    result = campaign.run(cluster, [(late, 1), (cluster.fault("two"), 1)], cluster.folder)
    assert [each.fault for each in result.late] == ["late"]
    assert len(result.outcomes) == 2


def test_no_acknowledgement_for_longer_than_any_fault_allows_is_a_violation(cluster: Cluster) -> None:
    result = campaign.run(cluster, [(cluster.fault("late", within=0.05, lasts=0.5), 1)], cluster.folder)
    assert broken(result) == ["alive"]
