"""A scenario's order, and what comes of it when something goes wrong in between; against clients alone."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from chaos import history, scenario
from chaos.deployed import Deployed
from chaos.faults import Injected
from chaos.history import Operation
from chaos.lab.shell import LabError
from tests.unit.chaos.clients import DEAD, LAST_WORDS
from tests.unit.chaos.cluster import Cluster

NEVER = 1000.0


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(scenario, "AFTER_SECONDS", 0.5)
    monkeypatch.setattr(scenario, "LATE_SECONDS", 0.5)
    monkeypatch.setattr(scenario, "ENDING_SECONDS", 5.0)
    made = Cluster(tmp_path)
    yield made
    left = [each for each in made.clients if each.poll() is None]
    for each in left:
        each.kill()
        each.wait()
    assert left == [], "clients were left running"


def operations(cluster: Cluster) -> list[Operation]:
    """What clients noted, of all scenarios."""
    return history.read(sorted(cluster.folder.glob("*.jsonl"))).operations


def test_well_traffic_fault_recovery_hold_heal_whole_end(cluster: Cluster) -> None:
    fault = cluster.fault(hold=0.4, lasts=0.3)
    outcome = scenario.run(cluster, fault, 1, cluster.folder)
    assert cluster.order == ["well", "traffic", "fault", "heal", "well"]
    broken, healed = cluster.first("fault"), cluster.first("heal")
    whole = cluster.first("well", after=healed)
    acknowledged = [each for each in operations(cluster) if each.acknowledged]
    before = [each for each in acknowledged if each.returned < broken]
    assert len(before) >= scenario.BEFORE
    recovered = min(each.returned for each in acknowledged if each.invoked > broken + 0.1)
    assert recovered + fault.hold_seconds <= healed, "it is healed before it has been held"
    assert max(each.returned for each in acknowledged) >= whole + scenario.AFTER_SECONDS / 2
    assert [each.returncode for each in cluster.clients] == [0], "the clients were not ended in order"
    assert (outcome.fault, outcome.tier, outcome.seed) == ("down", "Tier", 1)
    assert outcome.acknowledged == len(acknowledged)
    assert outcome.refused == len(operations(cluster)) - len(acknowledged) > 0
    assert outcome.recovered
    moments = [broken, *(each.returned for each in acknowledged if each.returned > broken)]
    longest = max(later - earlier for earlier, later in pairwise(moments))
    assert outcome.recovery == pytest.approx(longest, abs=0.1)


def test_a_seed_repeats_victim_and_moment_and_another_does_not(cluster: Cluster) -> None:
    early, late = (next(seed for seed in range(1000) if _drawn(seed) == draw) for draw in (0, 19))
    fault = cluster.fault(lasts=0.0)
    victims, before = [], []
    for number, seed in enumerate((early, late, early)):
        (folder := cluster.folder / str(number)).mkdir()
        cluster.happened.clear()
        victims.append(scenario.run(cluster, fault, seed, folder).victim)
        broken = cluster.first("fault")
        [log] = folder.glob("*.jsonl")
        stores = history.read([log]).operations
        before.append(sum(each.returned < broken for each in stores))
    assert victims[0] == victims[2] != victims[1]
    assert before[1] - max(before[0], before[2]) >= 5, "other moments for other seeds"
    assert min(before) >= scenario.BEFORE


def _drawn(seed: int) -> int:
    """How much later than at the earliest the fault is to be made, in acknowledgements."""
    return random.Random(seed).randrange(scenario.BEFORE)


def test_late_is_an_outcome_and_it_is_healed(cluster: Cluster) -> None:
    outcome = scenario.run(cluster, cluster.fault(within=0.1, lasts=NEVER), 1, cluster.folder)
    assert cluster.order == ["well", "traffic", "fault", "heal", "well"]
    assert not outcome.recovered
    assert outcome.recovery is not None
    assert outcome.recovery > 2 * 0.1 + scenario.LATE_SECONDS - 0.1


def test_never_served_again_is_an_outcome_without_a_time(cluster: Cluster) -> None:
    fault = cluster.fault(within=0.1, lasts=NEVER)

    def inject(given: Deployed, generator: random.Random) -> Injected:
        return Injected(fault.inject(given, generator).victim, lambda: cluster.note("heal"))

    outcome = scenario.run(cluster, replace(fault, inject=inject), 1, cluster.folder)
    assert outcome.recovery is None
    assert not outcome.recovered


def test_clients_that_die_are_an_error_with_their_last_words_and_it_is_healed(cluster: Cluster) -> None:
    fault = cluster.fault(lasts=NEVER)

    def inject(given: Deployed, generator: random.Random) -> Injected:
        cluster.dies()
        return fault.inject(given, generator)

    with pytest.raises(LabError, match=f"exit code {DEAD}: {LAST_WORDS}"):
        scenario.run(cluster, replace(fault, inject=inject), 1, cluster.folder)
    assert cluster.order == ["well", "traffic", "fault", "heal"]


def test_clients_that_die_before_the_fault_are_an_error_without_one(cluster: Cluster) -> None:
    cluster.dies()
    with pytest.raises(LabError, match=LAST_WORDS):
        scenario.run(cluster, cluster.fault(), 1, cluster.folder)
    assert cluster.order == ["well", "traffic"]


def test_a_cluster_that_is_not_well_gets_neither_traffic_nor_fault(cluster: Cluster) -> None:
    cluster.ill = ["etcd: no leader"]
    with pytest.raises(LabError, match="etcd: no leader"):
        scenario.run(cluster, cluster.fault(), 1, cluster.folder)
    assert cluster.order == ["well"]


def test_a_fault_that_cannot_be_made_ends_the_clients(cluster: Cluster) -> None:
    def inject(_cluster: Deployed, _generator: random.Random) -> Injected:
        raise LabError("no such host")

    with pytest.raises(LabError, match="no such host"):
        scenario.run(cluster, replace(cluster.fault(), inject=inject), 1, cluster.folder)
    assert [each.poll() for each in cluster.clients] == [0]


def test_a_cluster_that_does_not_get_well_is_an_error_after_healing(cluster: Cluster) -> None:
    fault = cluster.fault()

    def inject(given: Deployed, generator: random.Random) -> Injected:
        cluster.ill = ["ceph: HEALTH_WARN"]
        return fault.inject(given, generator)

    with pytest.raises(LabError, match="HEALTH_WARN"):
        scenario.run(cluster, replace(fault, inject=inject), 1, cluster.folder)
    assert cluster.order == ["well", "traffic", "fault", "heal", "well"]
    assert [each.poll() for each in cluster.clients] == [0]


def test_clients_that_do_not_end_are_killed_and_an_error(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenario, "ENDING_SECONDS", 0.3)
    (cluster.folder / "DEAF").touch()
    with pytest.raises(LabError, match="do not end"):
        scenario.run(cluster, cluster.fault(), 1, cluster.folder)
    assert [each.poll() for each in cluster.clients] == [-9]
